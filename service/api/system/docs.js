"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let components = {};

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-");

function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function resolve(schema) {
  return schema.$ref ? { ...components[schema.$ref.split("/").pop()], ...schema, $ref: undefined } : schema;
}

function branches(schema) {
  return (schema.anyOf || schema.oneOf || [schema]).map(resolve);
}

function typeName(schema) {
  schema = resolve(schema);
  if (schema.anyOf || schema.oneOf) return branches(schema).map(typeName).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `list of ${typeName(schema.items || {})}`;
  return [].concat(schema.type || "any").join(" or ");
}

function notes(schema) {
  const bounds = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<" };
  const parts = Object.entries(bounds)
    .filter(([key]) => Number.isSafeInteger(schema[key]) || !Number.isInteger(schema[key] ?? 0))
    .map(([key, sign]) => `${sign} ${schema[key]}`);
  if ((schema.default ?? null) !== null && !("const" in schema)) parts.push(`default ${JSON.stringify(schema.default)}`);
  return parts.join(", ");
}

function objectIn(schema) {
  for (const branch of branches(resolve(schema))) {
    if (branch.properties) return branch;
    if (branch.items) return objectIn(branch.items);
  }
  return null;
}

function fields(schema, depth = 0) {
  const object = objectIn(schema);
  if (!object || depth > 4) return null;
  const list = make("dl");
  for (const [name, raw] of Object.entries(object.properties)) {
    const field = resolve(raw);
    const required = (object.required || []).includes(name);
    list.append(make("dt", {}, make("code", {}, name), " ", make("span", { class: "type" }, typeName(raw)),
      required ? make("span", { class: "required" }, " required") : null));
    const text = [raw.description || field.description, notes(field)].filter(Boolean).join(" · ");
    if (text) list.append(make("dd", {}, ...prose(text)));
    const inner = fields(raw, depth + 1);
    if (inner) list.append(inner);
  }
  return list;
}

function sample(schema, depth = 0) {
  schema = branches(resolve(schema))[0];
  if ("const" in schema) return schema.const;
  if ((schema.default ?? null) !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.type === "array") return depth > 4 ? [] : [sample(schema.items || {}, depth + 1)];
  if (schema.properties && depth < 5) {
    const wanted = schema.required || [];
    return Object.fromEntries(wanted.map((name) => [name, sample(schema.properties[name], depth + 1)]));
  }
  return { integer: 1, number: 1, boolean: true, string: "text", object: {} }[schema.type] ?? null;
}

function curl(method, path, operation) {
  const streams = Object.keys(operation.responses["200"]?.content || {}).includes("text/event-stream");
  const address = location.origin + path.replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase());
  let command = `curl ${streams ? "-N " : ""}${method === "get" ? "" : `-X ${method.toUpperCase()} `}${address}`;
  const body = operation.requestBody?.content["application/json"];
  if (body) {
    const text = JSON.stringify(sample(body.schema)).replaceAll("'", "'\\''");
    command += ` \\\n  -H 'content-type: application/json' \\\n  -d '${text}'`;
  }
  return command;
}

function example(text) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return make("div", { class: "example" }, make("pre", {}, text), button);
}

function section(title, content) {
  return content ? [make("h3", {}, title), content] : [];
}

function parameters(operation) {
  if (!operation.parameters?.length) return null;
  const properties = Object.fromEntries(operation.parameters.map((item) => [`${item.name} (${item.in})`, item.schema]));
  const required = operation.parameters.filter((item) => item.required).map((item) => `${item.name} (${item.in})`);
  return fields({ properties, required });
}

function statuses(operation) {
  const list = make("dl");
  for (const [status, response] of Object.entries(operation.responses)) {
    const types = status === "200" ? Object.keys(response.content || {}).join(", ") : "";
    list.append(make("dt", {}, make("code", {}, status), " ", ...prose(response.description), " ",
      make("span", { class: "type" }, types)));
  }
  return list;
}

function render(method, path, operation) {
  const body = operation.requestBody?.content["application/json"].schema;
  const answer = operation.responses["200"]?.content?.["application/json"]?.schema;
  return make("details", { class: "operation", id: operation.operationId },
    make("summary", {}, make("code", { class: `method ${method}` }, method.toUpperCase()), make("code", {}, path),
      make("span", { class: "title" }, operation.summary)),
    make("div", { class: "body" }, operation.description ? make("p", {}, ...prose(operation.description)) : null,
      ...section("Parameters", parameters(operation)), ...section("Body", body ? fields(body) : null),
      ...section("Answer", answer ? fields(answer) : null), ...section("Statuses", statuses(operation)),
      ...section("Example", example(curl(method, path, operation)))));
}

async function show() {
  const main = document.getElementById("operations");
  const response = await fetch("/openapi.json");
  if (!response.ok) {
    main.textContent = `openapi.json could not be read: ${response.status}`;
    return;
  }
  const api = await response.json();
  components = api.components.schemas;
  document.getElementById("about").textContent = `${api.info.title} ${api.info.version}. ${api.info.summary}`;
  for (const { name } of api.tags) {
    document.getElementById("tags").append(make("a", { href: `#${slug(name)}` }, name));
    main.append(make("h2", { id: slug(name) }, name));
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        if (item[method]?.tags.includes(name)) main.append(render(method, path, item[method]));
      }
    }
  }
  const target = document.getElementById(location.hash.slice(1));
  if (target) target.open = true;
}

show();
