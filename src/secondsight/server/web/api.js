// The OpenAPI description as a page to read.

function append(parent, tag, text = "", className = "") {
  const node = Object.assign(document.createElement(tag), { textContent: text, className });
  parent.append(node);
  return node;
}

function typeName(schema) {
  if (schema.$ref) return schemaName(schema);
  if (schema.anyOf) return schema.anyOf.map(typeName).filter((name) => name !== "null").join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeName(schema.items || {})}`;
  return schema.type || "object";
}

function schemaName(schema) {
  return (schema.$ref || "").split("/").pop();
}

function defaultValue(field) {
  return field.default === undefined || field.default === null ? "–" : JSON.stringify(field.default);
}

function appendFields(parent, schema) {
  if (!schema || !schema.properties) return;
  const required = schema.required || [], table = append(parent, "table", "", "fields"), head = append(table, "tr");
  for (const title of ["field", "type", "if left out", ""]) append(head, "th", title).scope = "col";
  for (const [name, field] of Object.entries(schema.properties)) {
    const row = append(table, "tr");
    append(append(row, "td"), "code", name);
    append(row, "td", typeName(field));
    append(row, "td", required.includes(name) ? "needed" : defaultValue(field));
    append(row, "td", field.description);
  }
}

function appendRoute(parent, verb, path, route, schemas) {
  const section = append(parent, "div", "", "route");
  append(append(section, "h2"), "code", `${verb.toUpperCase()} ${path}`);
  append(section, "p", route.description || route.summary);
  const body = route.requestBody && route.requestBody.content["application/json"];
  if (body) appendFields(section, schemas[schemaName(body.schema)]);
}

document.getElementById("sample").textContent = `import base64, json, urllib.request

photo = base64.b64encode(open("photo.jpg", "rb").read()).decode()
question = {"image": photo, "captions": ["a dog on a sofa", "a cat on a sofa"]}
headers = {"content-type": "application/json"}
request = urllib.request.Request("${location.origin}/api/explain", json.dumps(question).encode(), headers)
answer = json.load(urllib.request.urlopen(request))
for e in answer["explanations"]:
    print(e["similarity"], e["terms"], e["error"])`;

const description = await (await fetch("/openapi.json")).json();
for (const [path, routes] of Object.entries(description.paths)) {
  for (const [verb, route] of Object.entries(routes)) {
    appendRoute(document.getElementById("routes"), verb, path, route, description.components.schemas);
  }
}
