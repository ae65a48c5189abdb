// A reader of /api/v1 and nothing else. Everything from the API becomes text nodes, never markup.
"use strict";

const text = (value) => (Array.isArray(value) ? value.join(", ") : value === null || value === undefined ? "" : String(value));
const action = (a) => {
  if (a.kind === "forward") return "→ " + a.clusters.map((c) => (a.clusters.length > 1 ? `${c.cluster} ×${c.weight}` : c.cluster)).join(", ");
  if (a.kind === "redirect") return `redirect ${a.status}`;
  if (a.kind === "respond") return `respond ${a.status}`;
  return `${a.kind}: ${text(a.reason)}`;
};
const days = (left) => (left < 0 ? "bad" : left < 21 ? "warn" : "good");
const share = (c) => (c.available === 0 ? "bad" : c.available < c.endpoints.length ? "warn" : "good");
const state = (e) => (e.ejected ? "ejected" : !e.healthy ? "unhealthy" : e.weight === 0 ? "resting" : "healthy");
const ago = (since) => {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  return seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
};

// Column: heading, text of a row, class of the cell (a name or a function of the row).
const SECTIONS = {
  Listeners: { path: "listeners", columns: [
    ["Name", (l) => l.name], ["Address", (l) => l.bound || l.address, "code"], ["Protocol", (l) => l.protocol],
    ["State", (l) => (l.bound ? "open" : "closed"), (l) => (l.bound ? "good" : "bad")],
    ["Client certificates", (l) => l.client_certificates], ["Routes", (l) => l.routes, "number"], ["Defined in", (l) => l.origin, "code"]] },
  Routes: { path: "routes", columns: [
    ["Name", (r) => r.name], ["Hosts", (r) => r.hosts, "code"], ["Path", (r) => r.path, "code"], ["Methods", (r) => r.methods],
    ["Conditions", (r) => [...r.headers, ...r.query, ...r.sources]], ["Filters", (r) => r.filters],
    ["Action", (r) => action(r.action), (r) => (r.action.kind === "broken" ? "bad" : "")], ["Defined in", (r) => r.origin, "code"]] },
  Clusters: { path: "clusters", columns: [
    ["Name", (c) => c.name], ["Available", (c) => `${c.available} of ${c.endpoints.length}`, share], ["Protocol", (c) => c.protocol + (c.tls ? " + TLS" : "")],
    ["Balance", (c) => c.balance], ["In flight", (c) => c.in_flight, "number"], ["Defined in", (c) => c.origin, "code"]] },
  Endpoints: { path: "endpoints", columns: [
    ["Cluster", (e) => e.cluster], ["Address", (e) => e.address, "code"], ["State", state, (e) => ({ healthy: "good", resting: "" })[state(e)] ?? "bad"],
    ["Weight", (e) => e.weight, "number"], ["Near", (e) => e.near ?? ""], ["In flight", (e) => e.in_flight, "number"], ["Idle connections", (e) => e.idle, "number"],
    ["Attempts", (e) => e.attempts, "number"], ["Failed", (e) => e.failures, "number"]] },
  Certificates: { path: "certificates", columns: [
    ["Name", (c) => c.name], ["Listener", (c) => c.listener], ["Serves", (c) => c.hosts, "code"], ["Kind", (c) => c.kind],
    ["Expires", (c) => c.not_after], ["Days left", (c) => c.days_left, (c) => days(c.days_left)],
    ["State", (c) => (c.last_good ? "last good one, the new one is unusable" : "in use"), (c) => (c.last_good ? "warn" : "good")]] },
  Problems: { path: "problems", columns: [
    ["Severity", (p) => p.severity, (p) => (p.severity === "error" ? "bad" : "warn")], ["Where", (p) => p.at, "code"],
    ["What", (p) => p.what], ["What would be right", (p) => p.hint]] },
  Connections: { path: "connections", columns: [
    ["Peer", (c) => c.peer, "code"], ["Listener", (c) => c.listener], ["Speaks", (c) => c.protocol + (c.tls ? " over TLS" : "")],
    ["Open for", (c) => ago(c.since)], ["Requests", (c) => c.requests, "number"]] },
};

const find = (id) => document.getElementById(id);
let current = decodeURIComponent(location.hash.slice(1));
if (!SECTIONS[current]) current = "Listeners";
let asked = 0;

async function get(path) {
  const answer = await fetch("/api/v1/" + path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function cell(row, [, value, kind]) {
  const td = document.createElement("td");
  const shown = value(row);
  td.textContent = text(shown);
  const name = typeof kind === "function" ? kind(row) : kind;
  if (name) td.className = name;
  return td;
}

function show(section, page) {
  const head = document.createElement("tr");
  for (const [title] of section.columns) {
    const th = document.createElement("th");
    th.scope = "col";
    th.textContent = title;
    head.append(th);
  }
  find("table").tHead.replaceChildren(head);
  find("table").tBodies[0].replaceChildren(...page.items.map((row) => {
    const tr = document.createElement("tr");
    tr.append(...section.columns.map((column) => cell(row, column)));
    return tr;
  }));
  find("count").textContent = page.items.length < page.total ? `${page.items.length} of ${page.total}` : `${page.total}`;
  find("empty").hidden = page.total > 0;
}

async function refresh() {
  const mine = ++asked;
  const section = SECTIONS[current];
  const filter = encodeURIComponent(find("filter").value);
  const status = find("status");
  try {
    const [config, page] = await Promise.all([get("config"), get(`${section.path}?limit=500&q=${filter}`)]);
    if (mine !== asked) return;
    show(section, page);
    const wrong = config.problems.errors ? `, ${config.problems.errors} problems` : "";
    status.textContent = `${config.version}, generation ${config.generation}, ${config.ready ? "ready" : config.waiting.join("; ")}${wrong}`;
    status.className = !config.ready || config.problems.errors ? "bad" : "good";
  } catch (error) {
    status.textContent = String(error.message || error);
    status.className = "bad";
  }
}

function choose(name) {
  current = name;
  location.hash = encodeURIComponent(name);
  for (const tab of find("tabs").children) {
    if (tab.textContent === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  find("filter").value = "";
  refresh();
}

for (const name of Object.keys(SECTIONS)) {
  const tab = document.createElement("button");
  tab.type = "button";
  tab.textContent = name;
  tab.addEventListener("click", () => choose(name));
  find("tabs").append(tab);
}
find("filter").addEventListener("input", refresh);
setInterval(() => { if (find("live").checked && !document.hidden) refresh(); }, 5000);
choose(current);
