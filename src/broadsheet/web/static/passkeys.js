// Passkeys: a form of the page that a browser without them, or without this script, never shows.
"use strict";

(() => {
  if (!window.PublicKeyCredential) return;

  const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
  const toText = (bytes) =>
    btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  async function ask(path, body) {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.redirected) {  // it wants a new sign-in first
      location.assign(answer.url);
      return new Promise(() => {});
    }
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    return said;
  }

  async function make(options) {
    const given = {
      ...options,
      challenge: toBytes(options.challenge),
      user: { ...options.user, id: toBytes(options.user.id) },
      excludeCredentials: options.excludeCredentials.map((one) => ({ ...one, id: toBytes(one.id) })),
    };
    const made = await navigator.credentials.create({ publicKey: given });
    return { ...named(made), response: {
      clientDataJSON: toText(made.response.clientDataJSON),
      attestationObject: toText(made.response.attestationObject),
    } };
  }

  async function use(options) {
    const found = await navigator.credentials.get({ publicKey: { ...options, challenge: toBytes(options.challenge) } });
    return { ...named(found), response: {
      clientDataJSON: toText(found.response.clientDataJSON),
      authenticatorData: toText(found.response.authenticatorData),
      signature: toText(found.response.signature),
      userHandle: found.response.userHandle ? toText(found.response.userHandle) : undefined,
    } };
  }

  function named(credential) {
    return { id: credential.id, rawId: toText(credential.rawId), type: credential.type };
  }

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    const status = form.querySelector("[role=status]"), button = form.querySelector("button");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      status.textContent = "";
      try {
        const { token, options } = await ask(`${form.getAttribute("action")}/options`, {});
        const credential = JSON.stringify(await (form.dataset.passkey === "make" ? make(options) : use(options)));
        const others = Object.fromEntries(new FormData(form));
        const { to } = await ask(form.getAttribute("action"), { ...others, token, credential });
        if (new URL(to, location.href).pathname === location.pathname) location.reload();
        else location.assign(to);
      } catch (error) {
        const known = { NotAllowedError: "No passkey was chosen.", InvalidStateError: "This device has a passkey of yours already." };
        status.textContent = known[error.name] || error.message;
        button.disabled = false;
      }
    });
  }
})();
