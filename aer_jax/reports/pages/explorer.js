"use strict";
// The clips of the page, sorted and filtered; everything that came with the data is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("clip-data").textContent);
  const form = document.getElementById("explorer-form");
  const list = document.getElementById("explorer-list");
  const status = document.getElementById("explorer-status");
  const more = document.getElementById("explorer-more");
  const PAGE = 12;
  let shown = PAGE;
  let playing = null;

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const two = (p) => p.toFixed(2);

  const orders = {
    ambiguous: (a, b) => b.ambiguity - a.ambiguity,
    clear: (a, b) => a.ambiguity - b.ambiguity,
    far: (a, b, arm) => b.js[arm] - a.js[arm],
    near: (a, b, arm) => a.js[arm] - b.js[arm],
  };

  const bar = (name, share, colour) => {
    const track = make("div", "track");
    const fill = make("i");
    fill.style.width = `${100 * share}%`;
    fill.style.background = colour;
    track.append(fill);
    track.title = `${name} ${two(share)}`;
    return track;
  };

  const player = (clip) => {
    const audio = make("audio");
    audio.preload = "none";
    audio.src = clip.audio;
    const button = make("button", "play");
    button.type = "button";
    button.setAttribute("aria-label", `Play ${clip.id}`);
    const stop = () => {
      audio.pause();
      audio.currentTime = 0;
    };
    button.addEventListener("click", () => {
      if (!audio.paused) return stop();
      if (playing && playing !== audio) {
        playing.pause();
        playing.currentTime = 0;
      }
      playing = audio;
      audio.play();
    });
    audio.addEventListener("timeupdate", () => {
      button.style.setProperty("--done", audio.paused ? 0 : audio.currentTime / (audio.duration || 1));
    });
    for (const event of ["play", "pause", "ended"]) {
      audio.addEventListener(event, () => {
        button.classList.toggle("on", !audio.paused);
        if (audio.paused) button.style.setProperty("--done", 0);
      });
    }
    const both = make("div", "player");
    both.append(button, audio);
    return both;
  };

  const card = (clip, arm) => {
    const item = make("li", "card");
    const head = make("div", "card-head");
    const words = make("div", "card-words");
    if (clip.words) words.append(make("q", "", clip.words));
    words.append(make("span", "id", clip.id), make("span", "speaker", `speaker ${clip.speaker}`));
    if (clip.audio) head.append(player(clip));
    head.append(words);
    const sources = [["listeners", clip.human, "var(--ink)"]];
    if (clip.synthetic) sources.push(["synthetic", clip.synthetic, "var(--synthetic)"]);
    sources.push(["predicted", clip.predicted[arm], `var(--${data.arms[arm].colour})`]);
    const bars = make("div", "shares");
    const cells = (name, middle, values) => {
      const row = make("div", "share");
      row.style.setProperty("--sources", sources.length);
      row.append(make("span", "name", name), middle, ...values);
      return row;
    };
    bars.append(cells("", make("span"), sources.map(([source]) => make("span", "value label", source))));
    data.classes.forEach((name, k) => {
      const tracks = make("div", "tracks");
      tracks.append(...sources.map(([source, shares, colour]) => bar(source, shares[k], colour)));
      bars.append(cells(name, tracks, sources.map(([, shares]) => make("span", "value", two(shares[k])))));
    });
    const foot = make("div", "card-foot");
    const said = [`JS ${clip.js[arm].toFixed(3)}`, `ambiguity ${two(clip.ambiguity)}`];
    if (clip.votes) said.push(`${clip.votes}${clip.synthetic ? ` + ${clip.synthetic_votes}` : ""} votes`);
    said.forEach((text) => foot.append(make("span", "", text)));
    if (clip.votes && clip.synthetic) foot.lastChild.title = "human + synthetic";
    item.append(head, bars, foot);
    return item;
  };

  const draw = () => {
    const chosen = new FormData(form);
    const arm = Number(chosen.get("arm") || 0);
    const order = orders[chosen.get("sort")];
    const [label, speaker] = [chosen.get("class"), chosen.get("speaker")];
    const found = data.clips
      .filter((clip) => (!label || clip.heard === label) && (!speaker || clip.speaker === speaker))
      .sort((a, b) => order(a, b, arm) || (a.id < b.id ? -1 : 1));
    const some = found.slice(0, shown);
    list.replaceChildren(...some.map((clip) => card(clip, arm)));
    status.textContent = `${some.length} of ${found.length} clips`;
    more.hidden = some.length === found.length;
    document.getElementById("key-predicted").style.background = `var(--${data.arms[arm].colour})`;
  };

  const fill = (name, values) => {
    const select = form.elements[name];
    for (const value of values) select.add(new Option(value, value));
  };
  fill("class", data.classes);
  fill("speaker", data.speakers);
  data.arms.forEach((arm, i) => form.elements.arm.add(new Option(arm.name, i)));
  form.elements.arm.value = data.leader;
  form.elements.arm.closest("label").hidden = data.arms.length < 2;
  form.addEventListener("input", () => {
    shown = PAGE;
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    shown += PAGE;
    draw();
  });
  form.hidden = false;
  draw();

  // Tables that are wider than the page say so.
  const check = () => {
    for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  };
  check();
  addEventListener("resize", check);
})();
