"use strict";
// Everything is put in as text, so that nothing in the document can become markup.

const VERBS = ["get", "head", "post", "put", "patch", "delete"];

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function modelLink(ref) {
  const name = ref.split("/").pop();
  const link = element("a", name);
  link.href = "#model-" + name;
  return link;
}

function typeOf(schema) {
  if (!schema) return element("span", "nothing", "dim");
  if (schema.$ref) return modelLink(schema.$ref);
  // What comes after the first only narrows it.
  if (schema.allOf) return typeOf(schema.allOf[0]);
  const options = schema.oneOf || schema.anyOf;
  if (options) {
    const all = element("span");
    options.forEach((option, at) => {
      if (at > 0) all.append(" or ");
      all.append(typeOf(option));
    });
    return all;
  }
  if (schema.items) {
    const list = element("span", "list of ");
    list.append(typeOf(schema.items));
    return list;
  }
  const types = [].concat(schema.type || "anything").filter((type) => type !== "null").join(" or ");
  return element("span", schema.enum ? schema.enum.join(" | ") : types);
}

function row(table, cells) {
  const line = table.insertRow();
  for (const cell of cells) line.insertCell().append(cell);
}

function schemaOf(holder) {
  const content = holder && holder.content;
  const kind = content && Object.keys(content)[0];
  return kind && content[kind].schema;
}

function route(path, verb, operation) {
  const box = element("details");
  box.dataset.words = (path + " " + operation.operationId).toLowerCase();
  const head = element("summary");
  head.append(element("span", verb.toUpperCase(), "verb " + verb), element("code", path), " ");
  head.append(element("span", operation.operationId, "dim"));
  box.append(head, element("p", operation.summary));
  const table = element("table");
  for (const parameter of operation.parameters || []) {
    const about = parameter.description || "";
    row(table, [element("code", parameter.name), parameter.in, typeOf(parameter.schema), about]);
  }
  if (operation.requestBody) row(table, ["body", "", typeOf(schemaOf(operation.requestBody)), ""]);
  for (const [status, response] of Object.entries(operation.responses)) {
    row(table, [status, "answer", typeOf(schemaOf(response)), response.description || ""]);
  }
  box.append(table);
  return box;
}

function model(name, schema) {
  const box = element("details");
  box.id = "model-" + name;
  box.append(element("summary", name));
  if (schema.description) box.append(element("p", schema.description));
  const table = element("table");
  for (const [field, type] of Object.entries(schema.properties || {})) {
    row(table, [element("code", field), typeOf(type), type.description || ""]);
  }
  box.append(table);
  return box;
}

function show(api) {
  document.getElementById("title").textContent = api.info.title + " " + api.info.version;
  document.getElementById("about").textContent = api.info.description;
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const verb of VERBS.filter((verb) => item[verb])) {
      const tag = item[verb].tags[0];
      if (!groups.has(tag)) groups.set(tag, element("section"));
      groups.get(tag).append(route(path, verb, item[verb]));
    }
  }
  const routes = document.getElementById("routes");
  for (const [tag, section] of groups) {
    section.prepend(element("h2", tag));
    routes.append(section);
  }
  const models = document.getElementById("models");
  for (const [name, schema] of Object.entries(api.components.schemas)) models.append(model(name, schema));
}

function follow() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
}

document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const box of document.querySelectorAll("#routes details")) box.hidden = !box.dataset.words.includes(wanted);
});
window.addEventListener("hashchange", follow);
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((api) => { show(api); follow(); })
  .catch((error) => { document.getElementById("about").textContent = "The routes cannot be read: " + error; });
