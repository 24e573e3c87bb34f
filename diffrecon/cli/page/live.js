// Follows a run: asks where it is, and loads the page again when a stage has left new pictures.
"use strict";
(() => {
  const place = (name) => document.getElementById(name);
  let version = null;
  async function look() {
    try {
      const state = await (await fetch("/state", { cache: "no-store" })).json();
      if (version !== null && state.version !== version) { location.reload(); return; }
      version = state.version;
      for (const name of ["now", "curves", "messages"]) place("live-" + name).innerHTML = state[name];
      setTimeout(look, 1000);
    } catch {
      place("live-now").textContent = "The run has ended. diffrecon report writes the page of its result.";
    }
  }
  look();
})();
