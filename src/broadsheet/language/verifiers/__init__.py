"""Verifiers: programs that say whether an answer is right. `verify(name, text, label)` asks one of them.

One idea a file; see `broadsheet.language.verifiers.registry` for how a verifier is added. None imports torch.
"""

from broadsheet.language.verifiers.registry import names, verifier, verifier_of, verify

__all__ = ["names", "verifier", "verifier_of", "verify"]
