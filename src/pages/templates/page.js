// Asks for the page again and shows what has changed. Without this script the page asks for itself anew.
"use strict";

const EVERY = 2000;
const HIDDEN = 15000;
let failures = 0;

async function again() {
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("board");
    if (fresh && fresh.innerHTML !== document.getElementById("board").innerHTML) {
      document.getElementById("board").replaceWith(document.adoptNode(fresh));
    }
    document.title = page.title;
    failures = 0;
  } catch {
    failures += 1;
  }
  document.getElementById("gone").hidden = failures < 2;
  setTimeout(again, document.hidden ? HIDDEN : EVERY);
}

setTimeout(again, EVERY);
