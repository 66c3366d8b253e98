// The page of `redislogkit web`. Text of records is only ever put into text nodes.
//
// Rows come in ascending numbers (`n`). `dense` holds an unbroken run of them up to the newest; `sparse` holds older ones
// that the server has found for the present filter. `shown` is what of both passes the filter, and the list shows the
// part of it that is in sight: rows have one height, and those that are expanded have some more below.
"use strict";

// --- theme, before anything is painted ---------------------------------------------------------------------

const light = matchMedia("(prefers-color-scheme: light)");
function setTheme(chosen) {
  document.documentElement.dataset.theme = chosen || (light.matches ? "light" : "dark");
}
setTheme(localStorage.getItem("theme"));
light.addEventListener("change", () => { if (!localStorage.getItem("theme")) setTheme(); drawPlots(); });

// --- state ---------------------------------------------------------------------------------------------------

const HEIGHT = 22, OVERSCAN = 12;
const MOST_ROWS = 100_000, TRIM = 5_000, MOST_PENDING = 100_000;
const OLDER = 5_000, OLDER_FOUND = 1_000;
const LEVELS = [[50, "critical"], [40, "error"], [30, "warning"], [20, "info"], [0, "debug"]];
const ALIASES = {
  exc_text: "x", exception: "x", pathname: "f", file: "f", funcName: "u", function: "u", levelname: "L", level: "L",
  levelno: "l", lineno: "i", line: "i", name: "g", logger: "g", process: "p", pid: "p", processName: "P",
  process_name: "P", stack_info: "k", stack: "k", taskName: "a", task: "a", threadName: "T", thread_name: "T",
  thread: "r", message: "m", created: "t",
};
const OVERRIDABLE = { host: "h", producer: "d", sequence: "s" };

const page = {
  feed: "", dense: [], sparse: [], shown: [], pending: [], pendingSkipped: 0,
  more: true, fetching: false, paused: false, follow: true, online: false,
  selected: null, expanded: new Map(), heights: [], offset: 0, skew: 0, scrolled: 0, walks: 0,
  files: [], searched: "", seconds: new Map(), unwritten: [], written: new Map(), state: {}, failure: "",
};
const filter = { level: 0, logger: "", grep: "", field: "" };
let test = () => true;
let pattern = null;
let $ = null;

function classOf(level) { return LEVELS.find(([least]) => level >= least)?.[1] ?? "debug"; }
function now() { return Date.now() / 1000 + page.skew; }
function number(value) { return Math.round(value).toLocaleString("en"); }
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// --- filters -------------------------------------------------------------------------------------------------

function compileGrep(text) {
  if (!text) return null;
  const regex = text.match(/^\/(.+)\/(i?)$/s);
  const source = regex ? regex[1] : text.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&");
  const ignore = regex ? regex[2] === "i" : text === text.toLowerCase();
  return { source, ignore, regex: new RegExp(source, ignore ? "gi" : "g") };
}
function patterns() { return filter.logger.split(/[\s,]+/).filter(name => name.replace(/^!/, "")); }
function fields() {
  return [...filter.field.matchAll(/([^\s=]+)=("([^"]*)"|\S*)/g)].map(found => [found[1], found[3] ?? found[2]]);
}
function selectsLogger(names, name) {
  for (let part = name; part; part = part.slice(0, Math.max(part.lastIndexOf("."), 0))) {
    if (names.has(part)) return true;
    if (names.has("!" + part)) return false;
  }
  for (const each of names) if (each[0] !== "!") return false;
  return true;
}
function inside(value, name) {
  if (value === undefined || value === null || typeof value !== "object") return undefined;
  if (Object.hasOwn(value, name)) return value[name];
  const dot = name.indexOf(".");
  return dot > 0 && Object.hasOwn(value, name.slice(0, dot)) ? inside(value[name.slice(0, dot)], name.slice(dot + 1)) : undefined;
}
function valueOf(row, name) {
  const own = inside(row.e, name);
  if (own !== undefined) return own;
  const key = Object.hasOwn(ALIASES, name) ? ALIASES[name] : Object.hasOwn(OVERRIDABLE, name) ? OVERRIDABLE[name] : null;
  if (name === "filename" || name === "module") {
    const file = (row.f || "").split("/").pop();
    return name === "module" ? file.replace(/\.[^.]*$/, "") : file;
  }
  return key === null ? undefined : row[key] ?? (key === "l" ? 0 : "");
}
function isValue(value, wanted) {
  if (value === undefined) return false;
  if (value === null) return ["", "None", "null"].includes(wanted);
  if (typeof value === "boolean") return String(value) === wanted.toLowerCase();
  if (typeof value === "number") return String(value) === wanted || (wanted !== "" && Number(wanted) === value);
  return (typeof value === "object" ? JSON.stringify(value) : value) === wanted;
}
function compileFilter() {
  let wrong = false;
  try { pattern = compileGrep(filter.grep); } catch { pattern = null; wrong = true; }
  $("grep").classList.toggle("wrong", wrong);
  $("grep").title = wrong ? "This is no regular expression" : "";
  const names = new Set(patterns()), known = new Map(), wanted = fields(), level = filter.level;
  const found = text => { pattern.regex.lastIndex = 0; return pattern.regex.test(text); };
  test = row => {
    if (row.note) return false;
    if (!row.o) {
      if (row.l < level) return false;
      if (names.size) {
        const name = row.g || "";
        let takes = known.get(name);
        if (takes === undefined) known.set(name, takes = selectsLogger(names, name));
        if (!takes) return false;
      }
    }
    if (pattern && !(found(row.m) || (row.x && found(row.x)) || (row.k && found(row.k)))) return false;
    return wanted.every(([name, value]) => isValue(valueOf(row, name), value));
  };
  for (const id of ["grep", "logger", "field"]) $(id).classList.toggle("on", Boolean(filter[id]));
  for (const button of $("levels").children) button.setAttribute("aria-checked", String(Number(button.dataset.level) === level));
  $("clear").hidden = !isFiltered();
}
function isFiltered() { return Boolean(filter.level || filter.logger || filter.grep || filter.field); }
function setFilter(changes) {
  Object.assign(filter, changes);
  for (const id of ["grep", "logger", "field"]) if ($(id).value !== filter[id]) $(id).value = filter[id];
  compileFilter();
  const kept = new URLSearchParams(Object.entries(filter).filter(([, value]) => value));
  history.replaceState(null, "", "#" + kept);
  page.sparse = [];
  page.more = true;
  page.searched = "";
  refilter();
}
function fromAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  return { level: Number(kept.get("level")) || 0, logger: kept.get("logger") || "", grep: kept.get("grep") || "", field: kept.get("field") || "" };
}
function refilter() {
  const anchor = page.follow ? null : page.selected;
  page.shown = page.sparse.concat(isFiltered() ? page.dense.filter(test) : page.dense);
  measureExpanded();
  repaint();  // what is found is marked in the rows
  if (page.follow) toEnd();
  else if (anchor && indexOf(anchor) >= 0) reveal(indexOf(anchor));
  fillUp();
}
function addField(name, value) {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const one = name + "=" + (/\s/.test(text) ? `"${text}"` : text);
  if (!filter.field.includes(one)) setFilter({ field: (filter.field + " " + one).trim() });
}

// --- rows that come ------------------------------------------------------------------------------------------

function take(rows, skipped) {
  if (page.paused) {
    page.pendingSkipped += skipped;
    for (const row of rows) page.pending.push(row);
    if (page.pending.length > MOST_PENDING) {
      page.pendingSkipped += page.pending.length - MOST_PENDING;
      page.pending.splice(0, page.pending.length - MOST_PENDING);
    }
    showCounts();
    return;
  }
  append(rows, skipped);
}
function append(rows, skipped) {
  const last = page.dense.length ? page.dense[page.dense.length - 1].n : 0;
  let fresh = rows.length && rows[0].n <= last ? rows.filter(row => row.n > last) : rows;
  if (skipped && page.dense.length && fresh.length) {
    fresh = [{ n: fresh[0].n - 0.5, note: `${number(skipped)} records came too fast to be shown; search, or scroll up after a reload, to find them` }, ...fresh];
  }
  const passed = isFiltered() ? fresh.filter(test) : fresh;
  for (const row of fresh) page.dense.push(row);
  for (const row of passed) page.shown.push(row);
  let gone = 0;
  if (page.dense.length > MOST_ROWS) {
    const cut = page.dense.length - MOST_ROWS + TRIM;
    const first = page.dense[cut].n;
    page.dense.splice(0, cut);
    page.sparse = [];
    gone = firstFrom(first);
    page.shown.splice(0, gone);
    page.more = isFiltered();  // without a filter, what was just let go of would come again, and again
    measureExpanded();
  }
  const before = $("list").scrollTop;
  render(true);
  if (page.follow) toEnd();
  else if (gone) $("list").scrollTop = Math.max(before - gone * HEIGHT, 0);
  showCounts();
}
function firstFrom(n) {
  let low = 0, high = page.shown.length;
  while (low < high) { const middle = (low + high) >> 1; if (page.shown[middle].n < n) low = middle + 1; else high = middle; }
  return low;
}
function indexOf(row) {
  const index = firstFrom(row.n);
  return page.shown[index] === row ? index : -1;
}
function setPaused(paused) {
  page.paused = paused;
  if (!paused) {
    const rows = page.pending, skipped = page.pendingSkipped;
    page.pending = []; page.pendingSkipped = 0;
    page.follow = true;
    append(rows, skipped);
    toEnd();
  }
  showLive();
  showCounts();
}

// --- older rows, from the server -----------------------------------------------------------------------------

async function fetchOlder(limit) {
  if (page.fetching || !page.more || !page.dense.length) return;  // the newest come by themselves, first
  const filtered = isFiltered(), asked = JSON.stringify(filter);
  const first = page.sparse[0] ?? page.dense[0];
  if ((filtered ? page.sparse : page.dense).length >= MOST_ROWS) { page.more = false; showOlder(); return; }
  page.fetching = true;
  showOlder();
  const query = filterQuery();
  query.set("limit", String(Math.min(limit ?? (filtered ? OLDER_FOUND : OLDER), MOST_ROWS - (filtered ? page.sparse.length : page.dense.length))));
  query.set("before", String(Math.ceil(first.n)));
  let found = null;
  try {
    const answer = await fetch("api/history?" + query);
    found = await answer.json();
    if (!answer.ok) { say(found.error || "The server refuses this search."); found = null; }
  } catch { /* the stream of events says that the server is away */ }
  page.fetching = false;
  if (found === null) { page.more = false; showOlder(); return; }
  if (found.feed !== page.feed || asked !== JSON.stringify(filter)) { fillUp(); return; }
  page.more = found.more;
  prepend(found.rows, filtered ? "sparse" : "dense");
  showOlder();
  fillUp();
}
async function fetchFiles(writer) {
  const first = page.sparse[0] ?? page.dense[0], asked = JSON.stringify(filter);
  page.fetching = true;
  showOlder();
  const query = filterQuery();
  query.set("writer", writer);
  query.set("before", String(first ? Math.floor(first.n) : 0));
  query.set("time", String(first && first.t ? first.t : now()));
  let found = null;
  try {
    const answer = await fetch("api/files?" + query);
    found = await answer.json();
    if (!answer.ok) { say(found.error || "The server refuses this search."); found = null; }
  } catch { /* the stream of events says that the server is away */ }
  page.fetching = false;
  if (found && found.feed === page.feed && asked === JSON.stringify(filter)) {
    page.searched = found.full ? `the newest ${number(found.rows.length)} from the files of ${writer}; a filter searches further back` : `the files of ${writer} have no more`;
    if (found.reports.length) say(found.reports.join("; "));
    prepend(found.rows, "sparse");
    if (found.rows.length) { page.follow = false; select(found.rows.length - 1); }
  }
  showOlder();
  render(true);
}
function filterQuery() {
  const query = new URLSearchParams();
  if (filter.level) query.set("level", String(filter.level));
  if (filter.logger) query.set("logger", patterns().join(","));
  if (pattern) { query.set("grep", pattern.source); if (pattern.ignore) query.set("ignore_case", "1"); }
  for (const [name, value] of fields()) query.append("field", `${name}=${value}`);
  return query;
}
function prepend(rows, where) {
  page[where] = rows.concat(page[where]);
  page.shown = rows.concat(page.shown);
  measureExpanded();
  const list = $("list"), before = list.scrollTop;
  render(true);
  if (page.follow) toEnd();
  else list.scrollTop = before + rows.length * HEIGHT;
  showCounts();
}
function fillUp() {
  const list = $("list");
  if (page.more && !page.fetching && (total() < list.clientHeight * 2 || list.scrollTop < HEIGHT * 20)) fetchOlder();
}
function showOlder() {
  const full = page.dense.length >= MOST_ROWS - TRIM - 1 && !isFiltered();
  const text = page.fetching ? "looking for older records …"
    : page.more ? "" : page.searched ? page.searched
    : full ? "this page holds no more than this; a filter searches further back" : page.files.length ? "" : "older ones are not kept here";
  const bar = $("older");
  bar.replaceChildren(text);
  showCounts();
  if (page.fetching || page.more || page.searched || full) return;
  if (page.files.length) bar.append("older ones are in the log files: ");
  for (const name of page.files.slice(0, 8)) {
    const button = element("button", "", `search ${name}`);
    button.addEventListener("click", () => fetchFiles(name));
    bar.append(button);
  }
}

// --- the list ------------------------------------------------------------------------------------------------

const painted = new Map();

function measureExpanded() {
  page.heights = [];
  for (const [row, height] of page.expanded) {
    const index = indexOf(row);
    if (index >= 0) page.heights.push([index, height]);
  }
  page.heights.sort((a, b) => a[0] - b[0]);
}
function top_(index) {
  let more = 0;
  for (const [at, height] of page.heights) { if (at >= index) break; more += height; }
  return index * HEIGHT + more;
}
function total() { return top_(page.shown.length); }
function indexAt(y) {
  let more = 0;
  for (const [at, height] of page.heights) {
    const end = (at + 1) * HEIGHT + more;
    if (y < end) break;
    if (y < end + height) return at;
    more += height;
  }
  return Math.min(Math.max(Math.floor((y - more) / HEIGHT), 0), Math.max(page.shown.length - 1, 0));
}
let planned = false;
function render(resized) {
  if (resized) $("space").style.height = total() + "px";
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; paint(); });
}
function paint() {
  const list = $("list"), space = $("space");
  const y = list.scrollTop - 24;
  const first = Math.max(indexAt(y) - OVERSCAN, 0);
  const last = Math.min(indexAt(y + list.clientHeight) + OVERSCAN, page.shown.length - 1);
  const keep = new Set();
  for (let index = first; index <= last; index++) {
    const row = page.shown[index];
    keep.add(row);
    let node = painted.get(row);
    if (!node) {
      node = rowNode(row);
      painted.set(row, node);
      space.append(node);
    }
    node.style.transform = `translateY(${top_(index)}px)`;
    node.classList.toggle("selected", row === page.selected);
  }
  for (const [row, node] of painted) if (!keep.has(row)) { node.remove(); painted.delete(row); }
  for (const [row, height] of page.expanded) {
    const node = painted.get(row);
    const real = node ? node.offsetHeight - HEIGHT : height;
    if (real !== height) {
      page.expanded.set(row, real);
      measureExpanded();
      render(true);
    }
  }
  $("empty").hidden = page.shown.length > 0;
  if (!page.shown.length) showEmpty();
}
function repaint() {
  for (const node of painted.values()) node.remove();
  painted.clear();
  render(true);
}
function showEmpty() {
  const box = $("empty");
  const [title, text] = page.fetching ? ["Searching …", ""]
    : isFiltered() ? ["Nothing matches", "Take a filter away with x, or wait for what comes."]
    : page.online ? ["Nothing has been logged yet", "New records appear here the moment they are in the stream."] : ["Connecting …", ""];
  box.replaceChildren(element("b", "", title), element("span", "", text));
}
function toEnd() { const list = $("list"); list.scrollTop = list.scrollHeight; }
function isAtEnd() { const list = $("list"); return list.scrollHeight - list.scrollTop - list.clientHeight < HEIGHT * 1.5; }
function reveal(index) {
  const list = $("list"), y = top_(index) + 24, height = HEIGHT + (page.expanded.get(page.shown[index]) ?? 0);
  if (y < list.scrollTop + HEIGHT) list.scrollTop = y - HEIGHT * 2;
  else if (y + height > list.scrollTop + list.clientHeight - HEIGHT) list.scrollTop = Math.min(y - HEIGHT * 2, y + height - list.clientHeight + HEIGHT * 2);
}

function two(value) { return String(value).padStart(2, "0"); }
function clock(seconds) {
  const at = new Date(seconds * 1000);
  const day = at.toDateString() === new Date(now() * 1000).toDateString() ? "" : `${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  if (day) $("space").classList.add("dated");  // room for it, in all rows
  return [`${day}${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`, "." + String(at.getMilliseconds()).padStart(3, "0")];
}
function moment(seconds) {
  const ahead = -new Date(seconds * 1000).getTimezoneOffset(), off = Math.abs(ahead);
  const text = new Date((seconds + ahead * 60) * 1000).toISOString().slice(0, -1);
  return `${text}${ahead < 0 ? "-" : "+"}${two(Math.floor(off / 60))}:${two(off % 60)}`;
}
function marked(node, text) {
  if (!pattern) { node.append(text); return; }
  let from = 0;
  pattern.regex.lastIndex = 0;
  for (let times = 0, found; times < 200 && (found = pattern.regex.exec(text)); times++) {
    if (!found[0]) { pattern.regex.lastIndex++; continue; }
    node.append(text.slice(from, found.index), element("mark", "", found[0]));
    from = found.index + found[0].length;
  }
  node.append(text.slice(from));
}
function flat(text) { return text.length > 2000 ? text.slice(0, 2000) : text; }
function visible(text) { return text.replace(/\r?\n/g, " ⏎ ").replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "·"); }
function show(value) { return typeof value === "string" ? value : JSON.stringify(value); }

function rowNode(row) {
  const node = element("div", "row");
  if (row.note) {
    node.classList.add("note");
    node.append(element("div", "line", row.note));
    return node;
  }
  node.classList.add(classOf(row.l));
  if (row.o) node.classList.add("notice");
  const line = element("div", "line");
  const [time, milliseconds] = row.t ? clock(row.t) : ["", ""];
  const at = element("span", "time", time);
  at.append(element("span", "ms", milliseconds));
  const text = element("span", "text");
  marked(text, visible(flat(row.m)));
  if (row.x) { const lines = row.x.trimEnd().split("\n"); text.append(element("span", "more", "  " + visible(flat(lines[lines.length - 1])))); }
  if (row.e) {
    const extras = element("span", "extras", "  ");
    for (const [name, value] of Object.entries(row.e)) extras.append(" ", element("b", "", visible(name) + "="), visible(flat(show(value))));
    text.append(extras);
  }
  line.append(at, element("span", "level", shortLevel(row)), processNode(row), element("span", "name", row.g || ""), text);
  node.append(line);
  if (page.expanded.has(row)) node.append(detail(row));
  node.row = row;
  return node;
}
let procWidth = 8;
function processNode(row) {
  const named = row.P && row.P !== "MainProcess" ? `${row.P} ` : "";
  const text = `${named}${row.p ?? ""}`, node = element("span", "proc", text);
  node.title = `${row.P || ""} ${row.p ?? ""} on ${row.h || "?"}`;
  let hash = 7;
  for (const letter of row.d || text) hash = (hash * 31 + letter.charCodeAt(0)) % 65536;
  node.style.setProperty("--hue", String(Math.round(hash * 137.508) % 360));
  if (text.length > procWidth && procWidth < 20) {
    procWidth = Math.min(text.length, 20);
    $("space").style.setProperty("--proc", procWidth + "ch");
  }
  return node;
}
function shortLevel(row) {
  if (narrow.matches) return (row.L || "?")[0];
  return { WARNING: "WARN", CRITICAL: "CRIT" }[row.L] ?? visible(row.L || String(row.l));
}
const narrow = matchMedia("(max-width: 860px)");
narrow.addEventListener("change", () => repaint());

function detail(row) {
  const box = element("div", "detail");
  const copy = element("button", "plain", "copy as JSON");
  copy.addEventListener("click", async event => {
    event.stopPropagation();
    await copyText(JSON.stringify(asJson(row), null, 2));
    copy.textContent = "copied";
  });
  box.append(copy);
  if (row.m.includes("\n") || row.m.length > 120) box.append(pre("", row.m));
  if (row.x) box.append(pre("exception", row.x));
  if (row.k) box.append(pre("", row.k));
  if (row.e) box.append(table(Object.entries(row.e).flatMap(([name, value]) => flatten(name, value))));
  const where = row.f ? `${row.f}:${row.i ?? 0}` + (row.u ? ` in ${row.u}` : "") : "";
  box.append(table([
    ["time", moment(row.t), null],
    ["level", `${row.L || ""} (${row.l})`, () => setFilter({ level: row.l })],
    ["logger", row.g || "", () => setFilter({ logger: row.g || "" })],
    ["logged at", where, null],
    ["process", `${row.P || ""} ${row.p ?? ""}`.trim(), () => addField("pid", row.p)],
    ["thread", [row.T, row.a && `task ${row.a}`].filter(Boolean).join(", "), null],
    ["host", row.h || "", () => addField("host", row.h)],
    ["record", row.d ? `${row.d} ${row.s}` : "", null],
  ].filter(([, text]) => text)));
  return box;
}
function flatten(name, value) {
  if (value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) {
    return Object.entries(value).flatMap(([key, item]) => flatten(`${name}.${key}`, item));
  }
  return [[name, show(value), () => addField(name, value)]];
}
function pre(className, text) {
  const made = element("pre", className);
  marked(made, text);
  return made;
}
function table(entries) {
  const list = element("dl");
  for (const [name, text, act] of entries) {
    const value = element("dd");
    if (act) {
      const button = element("button", "", text || '""');
      button.title = "Show only these";
      button.addEventListener("click", event => { event.stopPropagation(); act(); });
      value.append(button);
    } else value.textContent = text;
    list.append(element("dt", "", name), value);
  }
  return list;
}
function asJson(row) {
  const made = { time: new Date(row.t * 1000).toISOString(), level: row.L, logger: row.g, message: row.m, ...(row.e || {}) };
  if (row.x) made.exception = row.x;
  if (row.k) made.stack = row.k;
  return Object.assign(made, { host: row.h, pid: row.p, process_name: row.P, thread_name: row.T, file: row.f, line: row.i, function: row.u });
}
async function copyText(text) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = element("textarea", "", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

// --- moving about --------------------------------------------------------------------------------------------

function select(index, keepFollowing) {
  if (!page.shown.length) return;
  page.walks++;
  index = Math.min(Math.max(index, 0), page.shown.length - 1);
  page.selected = page.shown[index];
  page.follow = Boolean(keepFollowing);
  if (page.follow) toEnd(); else reveal(index);
  render();
  showCounts();
}
function current() {
  const index = page.selected ? indexOf(page.selected) : -1;
  return index >= 0 ? index : indexAt($("list").scrollTop + $("list").clientHeight - 48);
}
function move(by) { select(page.selected && indexOf(page.selected) >= 0 ? current() + by : current()); }
function toggle(row) {
  if (!row || row.note) return;
  const node = painted.get(row);
  if (page.expanded.has(row)) {
    page.expanded.delete(row);
    node?.querySelector(".detail")?.remove();
  } else {
    page.expanded.set(row, 0);
    if (node) { node.append(detail(row)); page.expanded.set(row, node.offsetHeight - HEIGHT); }
    page.follow = false;
  }
  measureExpanded();
  render(true);
  const index = indexOf(row);
  if (index >= 0 && page.expanded.has(row)) requestAnimationFrame(() => { reveal(index); render(); });
  showCounts();
}
function foldAll() {
  page.expanded.clear();
  measureExpanded();
  repaint();
}
function nextError(by) {
  const begin = page.selected && indexOf(page.selected) >= 0 ? current() : by > 0 ? -1 : page.shown.length;
  for (let index = begin + by; index >= 0 && index < page.shown.length; index += by) {
    if (page.shown[index].l >= 40) { select(index); return; }
  }
}
async function toOldest() {
  const walk = ++page.walks;
  page.follow = false;
  for (let times = 0; page.more && times < 30; times++) {
    if (page.fetching) await new Promise(done => setTimeout(done, 30));
    else await fetchOlder(20_000);
    if (walk !== page.walks) return;  // who has gone elsewhere meanwhile stays there
  }
  select(0);
  $("list").scrollTop = 0;
}
function toFiles() {
  const buttons = $("older").querySelectorAll("button");
  if (buttons.length === 1) buttons[0].click();
  else if (buttons.length) { $("list").scrollTop = 0; buttons[0].focus({ focusVisible: true }); }
  else say(page.files.length ? $("older").textContent || "First g: what is kept in memory is not gone through yet." : "Log files can be searched only on the host that has them.");
}
function toNewest() {
  page.walks++;
  if (page.paused) setPaused(false);
  page.follow = true;
  page.selected = page.shown[page.shown.length - 1] ?? null;
  toEnd();
  render();
  showCounts();
}

// --- what stands around the list -----------------------------------------------------------------------------

function showLive() {
  const button = $("live");
  button.className = "live " + (!page.online ? "off" : page.paused ? "paused" : "on");
  button.lastElementChild.textContent = !page.online ? "reconnecting" : page.paused ? "paused" : "live";
}
function showCounts() {
  const all = page.sparse.length + page.dense.length, shown = page.shown.length;
  const parts = [isFiltered() ? `${number(shown)} match of ${number(all)} here` : `${number(shown)} records`];
  if (page.selected) {
    const index = indexOf(page.selected);
    if (index >= 0) parts.push(`at ${number(index + 1)}`);
  }
  if (page.fetching) parts.push("looking for older ones …");
  $("count").textContent = parts.join("  ·  ");
  const waiting = page.pending.length + page.pendingSkipped, jump = $("jump");
  jump.hidden = (page.follow || isAtEnd()) && !page.paused;
  jump.textContent = page.paused ? `${number(waiting)} new  ·  go on` : "newest ↓";
  document.title = (page.paused ? "⏸ " : "") + page.stream + " – redislogkit";
}
let sayTimer = 0;
function say(text) {
  const banner = $("banner");
  banner.textContent = text;
  banner.hidden = !text;
  clearTimeout(sayTimer);
  if (text) sayTimer = setTimeout(() => { banner.hidden = !page.failure; banner.textContent = page.failure; }, 8000);
}
function ago(seconds) {
  if (seconds < 10) return "now";
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) if (seconds >= length) return Math.floor(seconds / length) + " " + unit;
}
function span(seconds) {
  if (seconds < 0.0005) return "0 s";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  return seconds < 120 ? seconds.toFixed(1) + " s" : ago(seconds);
}
function bytes(value) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) { if (value < 1024) return (unit === "B" ? value : value.toFixed(1)) + " " + unit; value /= 1024; }
  return value.toFixed(1) + " TiB";
}
function thing(kind, name, small, right, below, tag = "div") {
  const made = element(tag, "thing " + kind);
  const title = element("b", "", name);
  if (small) title.append(element("small", "", " " + small));
  made.append(element("i"), title, element("span", "", right));
  for (const text of below.filter(Boolean)) made.append(typeof text === "string" ? element("em", "", text) : element("em", "bad", text.bad));
  return made;
}
function count(value, noun) { return value ? `${number(value)} ${noun}${value === 1 ? "" : "s"}` : ""; }
function trouble(child) {
  const said = [child.state === "running" ? "" : child.state, child.error || (child.state === "running" ? "" : child.last_exit)].filter(Boolean).join(": ");
  return said && { bad: said };
}
const STATES = { running: "good", starting: "wait", waiting: "wait", restarting: "wait", draining: "wait", "set aside": "bad", ended: "" };

function showState(state) {
  page.state = state;
  page.skew = state.now - Date.now() / 1000;
  page.failure = state.failure ? `The stream is not followed any more: ${state.failure}` : "";
  if (page.failure) say(page.failure);
  const children = state.supervisor?.children ?? [], behind = { ...(state.stream?.writers ?? {}) };
  const writers = children.filter(child => child.kind === "writer").map(child => {
    const group = Object.keys(behind).find(name => name === child.name || name === `${child.name}@${state.supervisor.host}`);
    const lag = group && behind[group];
    if (group) delete behind[group];
    const rate = rateOf(child, state.now);
    const right = rate === null ? "" : `${number(rate)}/s`;
    const counts = [`${number(child.written ?? 0)} written`, child.bytes ? bytes(child.bytes) : "", count(child.rotations, "rotation"), child.rejected ? `${number(child.rejected)} rejected` : "", count(child.restarts, "restart")];
    return thing(STATES[child.state] ?? "", child.name, child.type, right, [
      trouble(child),
      counts.filter(Boolean).join(" · "),
      lag?.records ? `${number(lag.records)} behind, oldest ${span(lag.oldest_unread)}` : "",
    ]);
  });
  for (const [name, lag] of Object.entries(behind)) {
    writers.push(thing(lag.records ? "wait" : "", name, "not on this host", "", [lag.records ? `${number(lag.records)} behind, oldest ${span(lag.oldest_unread)}` : "has written all"]));
  }
  fill("writers", writers, state.stream_error || "No writer is known to the stream.");
  const others = children.filter(child => child.kind !== "writer").map(child => thing(STATES[child.state] ?? "", child.name, child.pid ? `pid ${child.pid}` : "", child.kind === "shipper" ? `${number(child.shipped ?? 0)} shipped` : "", [
    trouble(child),
    child.kind === "shipper" && child.spool_bytes ? `${count(child.spools, "spool")}, ${bytes(child.spool_bytes)}` : "",
    count(child.restarts, "restart"),
  ]));
  const dropped = Object.entries(state.supervisor?.dropped ?? {}).filter(([, count]) => count);
  if (dropped.length) others.push(thing("bad", "dropped", "", "", dropped.map(([cause, records]) => ({ bad: `${number(records)} ${cause.replaceAll("_", " ")}` }))));
  fill("supervisor", others, state.supervisor_error || "It does not answer.");
  $("supervisor-note").textContent = state.supervisor ? `since ${ago(Math.max(state.now - state.supervisor.since, 10))}` : "";
  const worst = Math.max(0, ...Object.values(state.stream?.writers ?? {}).map(lag => lag.oldest_unread));
  if (state.stream) { page.unwritten.push([state.now, worst]); while (page.unwritten[0]?.[0] < state.now - 330) page.unwritten.shift(); }
  $("writers-note").textContent = state.stream ? `${number(state.stream.entries)} entries in the stream` : "redis does not answer";
}
function rateOf(child, at) {
  const before = page.written.get(child.name);
  page.written.set(child.name, [at, child.written]);
  return before && at > before[0] && child.written >= before[1] ? (child.written - before[1]) / (at - before[0]) : null;
}
function fill(id, things, otherwise) { $(id).replaceChildren(...(things.length ? things : [element("div", "none", otherwise)])); }

function showProducers(producers) {
  const hosts = new Set(producers.map(each => each.host));
  $("producers-note").textContent = producers.length ? `${producers.length} heard of` : "";
  fill("producers", producers.slice(0, 60).map(each => {
    const quiet = now() - each.last;
    const made = thing(quiet < 60 ? "good" : "", `${each.name || "process"}[${each.pid}]`, hosts.size > 1 ? each.host : "", quiet < 10 ? "now" : `${ago(quiet)} ago`, [[count(each.records, "record"), count(each.errors, "error")].filter(Boolean).join(" · ")], "button");
    made.title = "Show only these";
    made.addEventListener("click", () => { addField("pid", each.pid); if (hosts.size > 1) addField("host", each.host); });
    return made;
  }), "Nobody has logged yet.");
}
function showLoggers() {
  const names = new Set();
  for (let index = page.dense.length - 1, times = 0; index >= 0 && times < 3000; index--, times++) if (page.dense[index].g) names.add(page.dense[index].g);
  $("loggers").replaceChildren(...[...names].sort().slice(0, 200).map(name => { const option = element("option"); option.value = name; return option; }));
}

// --- plots ---------------------------------------------------------------------------------------------------

const SPAN = 300;
function takeSeconds(content) {
  page.skew = content.now - Date.now() / 1000;
  for (const [moment, ...values] of content.seconds) page.seconds.set(moment, values);
  for (const moment of page.seconds.keys()) if (moment < content.now - SPAN - 30) page.seconds.delete(moment);
  drawPlots();
}
function canvas(id) {
  const node = $(id), scale = devicePixelRatio || 1, width = node.clientWidth, height = Number(node.dataset.height);
  if (!width) return null;
  node.style.height = height + "px";
  if (node.width !== Math.round(width * scale)) node.width = Math.round(width * scale);
  if (node.height !== Math.round(height * scale)) node.height = Math.round(height * scale);
  const context = node.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }
function caption(context, width, height, top, faint) {
  context.fillStyle = faint;
  context.font = "10px system-ui, sans-serif";
  context.textAlign = "left";
  context.fillText(top, 5, 12);
  context.fillText("5 min ago", 5, height - 4);
  context.textAlign = "right";
  context.fillText("now", width - 5, height - 4);
}
function drawPlots() {
  if (!$) return;
  drawThroughput();
  drawDelay();
}
function drawThroughput() {
  const last = Math.floor(now()), plot = canvas("throughput");
  const newest = [1, 2, 3].map(back => sum(page.seconds.get(last - back)));
  $("rate").textContent = number(sum(newest) / 3);
  if (!plot) return;
  const { context, width, height } = plot, each = 5, bars = SPAN / each, bar = width / bars, room = height - 32;
  const found = Array.from({ length: bars }, () => [0, 0, 0, 0, 0]);
  for (const [moment, values] of page.seconds) {
    const place = bars - 1 - (Math.floor(last / each) - Math.floor(moment / each));
    if (place >= 0 && place < bars) for (let level = 0; level < 5; level++) found[place][level] += values[level] / (place === bars - 1 ? Math.max(last % each, 1) : each);
  }
  const most = Math.max(1, ...found.map(sum));
  const colours = LEVELS.map(([, name]) => colour(name));
  found.forEach((values, place) => {
    let y = height - 16;
    for (let level = 4; level >= 0; level--) {
      if (!values[level]) continue;
      const tall = Math.max(values[level] / most * room, 1);
      context.fillStyle = colours[level];
      context.fillRect(place * bar + 0.5, y - tall, bar - 1, tall);
      y -= tall;
    }
  });
  caption(context, width, height, `${number(most)}/s`, colour("faint"));
}
function drawDelay() {
  const plot = canvas("delay"), at = now();
  const here = [...page.seconds].filter(([moment]) => moment > at - SPAN).map(([moment, values]) => [moment + 0.5, values[5]]).sort((a, b) => a[0] - b[0]);
  const recent = here.filter(([moment]) => moment > at - 10);
  const unwritten = page.unwritten.length ? page.unwritten[page.unwritten.length - 1][1] : null;
  const worst = Math.max(recent.length ? Math.max(...recent.map(point => point[1])) : 0, unwritten ?? 0);
  $("lag").textContent = recent.length || unwritten !== null ? span(worst) : "–";
  if (!plot) return;
  const { context, width, height } = plot;
  const most = Math.max(0.05, ...here.map(point => point[1]), ...page.unwritten.map(point => point[1]));
  const line = (points, stroke, gap) => {
    context.strokeStyle = stroke; context.lineWidth = 1.5; context.lineJoin = "round";
    context.beginPath();
    let before = -Infinity;
    for (const [moment, value] of points) {
      const x = width - (at - moment) / SPAN * width, y = height - 17 - value / most * (height - 32);
      if (moment - before > gap) { context.moveTo(x - 1, y); context.lineTo(x, y); } else context.lineTo(x, y);
      before = moment;
    }
    context.stroke();
  };
  line(page.unwritten, colour("wait"), 10);
  line(here, colour("accent"), 4);
  caption(context, width, height, span(most), colour("faint"));
}
function sum(values) { return values ? values.slice(0, 5).reduce((all, value) => all + value, 0) : 0; }

// --- events of the server ------------------------------------------------------------------------------------

function connect() {
  const events = new EventSource("api/events");
  const on = (kind, act) => events.addEventListener(kind, event => act(JSON.parse(event.data)));
  on("hello", hello => {
    page.online = true;
    page.skew = hello.now - Date.now() / 1000;
    page.stream = hello.stream;
    page.files = hello.files ?? [];
    $("stream").textContent = hello.stream;
    $("stream").title = `stream ${hello.stream}, seen from ${hello.host}, redislogkit ${hello.version}`;
    if (page.feed && page.feed !== hello.feed) {
      page.dense = []; page.sparse = []; page.pending = []; page.expanded.clear(); page.selected = null; page.seconds.clear();
    }
    const first = page.feed !== hello.feed;
    page.feed = hello.feed;
    if (first) { page.more = true; refilter(); }
    showLive();
    showCounts();
  });
  on("rows", content => { take(content.rows, content.skipped); fillUp(); });
  on("report", report => { if (now() - report.at < 30) say(report.text); });
  on("state", state => {
    showState(state);
    if (!page.dense.length && !page.fetching && page.more) { page.more = false; showOlder(); }  // nothing is kept
  });
  on("producers", showProducers);
  on("seconds", takeSeconds);
  events.onerror = () => {
    page.online = false;
    showLive();
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 2000);  // refused, and not tried again by itself
    render();
  };
}

// --- hands ---------------------------------------------------------------------------------------------------

function cycleTheme() {
  const next = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  if ((next === "light") === light.matches) localStorage.removeItem("theme"); else localStorage.setItem("theme", next);
  setTheme(next);
  drawPlots();
}
function toggleSide() {
  if (narrow.matches) document.body.classList.toggle("show-side");
  else localStorage.setItem("side", document.body.classList.toggle("no-side") ? "no" : "yes");
  drawPlots();
}
const KEYS = {
  "/": () => toInput("grep"), "l": () => toInput("logger"), "f": () => toInput("field"), "o": () => toFiles(),
  "j": () => move(1), "ArrowDown": () => move(1), "k": () => move(-1), "ArrowUp": () => move(-1),
  "PageDown": () => select(current() + pageful()), "PageUp": () => select(current() - pageful()),
  "g": () => toOldest(), "Home": () => toOldest(), "G": () => toNewest(), "End": () => toNewest(),
  "Enter": () => toggle(page.selected ?? page.shown[current()]), "e": () => nextError(1), "E": () => nextError(-1),
  " ": () => setPaused(!page.paused), "c": foldAll, "t": cycleTheme, "s": toggleSide, "?": () => $("help").showModal(),
  "x": () => setFilter({ level: 0, logger: "", grep: "", field: "" }),
};
["0", "10", "20", "30", "40", "50"].forEach((level, digit) => { KEYS[digit] = () => setFilter({ level: Number(level) }); });
function toInput(id) { $(id).focus(); $(id).select(); }
function pageful() { return Math.max(Math.floor($("list").clientHeight / HEIGHT) - 2, 1); }
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const target = event.target;
  if (target instanceof HTMLInputElement) {
    if (event.key === "Escape" || event.key === "Enter") {
      event.preventDefault();
      target.dispatchEvent(new Event("input"));
      target.blur();
      $("list").focus();
    }
    return;
  }
  if (target instanceof HTMLButtonElement && (event.key === " " || event.key === "Enter") && target.matches(":focus-visible")) return;
  const act = KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
}
function onScroll() {
  // Only who goes up leaves the end: a banner that takes room, or rows that have come since, have moved nobody.
  const y = $("list").scrollTop;
  page.follow = isAtEnd() || (page.follow && y >= page.scrolled);
  page.scrolled = y;
  render();
  showCounts();
  if ($("list").scrollTop < HEIGHT * 20) fillUp();
}
let typing = 0;
function takeTyped() {  // of all fields: who is quick has gone on to the next one meanwhile
  const typed = Object.fromEntries(["grep", "logger", "field"].map(id => [id, $(id).value.trim()]));
  if (Object.entries(typed).some(([id, text]) => filter[id] !== text)) setFilter(typed);
}
function start() {
  $ = id => document.getElementById(id);
  $("levels").addEventListener("click", event => { const level = event.target.dataset.level; if (level !== undefined) setFilter({ level: Number(level) }); });
  for (const id of ["grep", "logger", "field"]) {
    $(id).addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(takeTyped, page.dense.length > 20_000 ? 120 : 40); });
  }
  $("logger").addEventListener("focus", showLoggers);
  $("list").addEventListener("scroll", onScroll, { passive: true });
  $("space").addEventListener("click", event => {
    const node = event.target.closest(".row");
    if (!node?.row || event.target.closest(".detail") || String(getSelection())) return;
    page.selected = node.row;
    $("list").focus({ preventScroll: true });
    toggle(node.row);
  });
  $("live").addEventListener("click", () => setPaused(!page.paused));
  $("jump").addEventListener("click", toNewest);
  $("clear").addEventListener("click", KEYS.x);
  $("theme").addEventListener("click", cycleTheme);
  $("side").addEventListener("click", toggleSide);
  $("ask").addEventListener("click", KEYS["?"]);
  addEventListener("keydown", onKey);
  addEventListener("hashchange", () => setFilter(fromAddress()));
  new ResizeObserver(() => { render(true); if (page.follow) toEnd(); drawPlots(); }).observe($("list"));
  if (localStorage.getItem("side") === "no") document.body.classList.add("no-side");
  Object.assign(filter, fromAddress());
  setFilter({});
  setInterval(drawPlots, 1000);
  connect();
}
addEventListener("DOMContentLoaded", start);
