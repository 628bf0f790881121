"""`python -m broadsheet.cli`"""

from broadsheet.cli import main

main()
