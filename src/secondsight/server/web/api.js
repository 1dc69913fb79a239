// The OpenAPI description as a page to read.
const make = (tag, parent, text, className) => { const node = document.createElement(tag); if (text) node.textContent = text; if (className) node.className = className; parent.append(node); return node; };
document.getElementById("sample").textContent = `import base64, json, urllib.request

photo = base64.b64encode(open("photo.jpg", "rb").read()).decode()
question = {"image": photo, "captions": ["a dog on a sofa", "a cat on a sofa"]}
headers = {"content-type": "application/json"}
request = urllib.request.Request("${location.origin}/api/explain", json.dumps(question).encode(), headers)
answer = json.load(urllib.request.urlopen(request))
for e in answer["explanations"]:
    print(e["similarity"], e["terms"], e["error"])`;
const described = await (await fetch("/openapi.json")).json(), place = document.getElementById("routes");
const typed = (schema) => schema.$ref ? schema.$ref.split("/").pop() : schema.anyOf ? schema.anyOf.map(typed).filter((t) => t !== "null").join(" or ") : schema.enum ? schema.enum.map((v) => JSON.stringify(v)).join(", ") : schema.const !== undefined ? JSON.stringify(schema.const) : schema.type === "array" ? `list of ${typed(schema.items || {})}` : schema.type || "object";
const fields = (schema, parent) => {
  const known = described.components.schemas[(schema.$ref || "").split("/").pop()];
  if (!known || !known.properties) return;
  const table = make("table", parent, "", "fields"), head = make("tr", table);
  ["field", "type", "if left out", ""].forEach((name) => { make("th", head, name).scope = "col"; });
  for (const [name, own] of Object.entries(known.properties)) {
    const row = make("tr", table), required = (known.required || []).includes(name);
    make("code", make("td", row), name);
    make("td", row, typed(own));
    make("td", row, required ? "needed" : own.default === undefined || own.default === null ? "–" : JSON.stringify(own.default));
    make("td", row, own.description || "");
  }
};
for (const [path, methods] of Object.entries(described.paths)) for (const [verb, route] of Object.entries(methods)) {
  const own = make("div", place, "", "route");
  make("code", make("h2", own), `${verb.toUpperCase()} ${path}`);
  make("p", own, route.description || route.summary);
  const body = route.requestBody && route.requestBody.content["application/json"];
  if (body) fields(body.schema, own);
}
