//! `/openapi.json` (OpenAPI 3.1), from the table of routes and the schemas of the models.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    access::Need,
    answer::Problem,
    bags,
    route::{Lead, Route, Shape},
};
use crate::{keymanager::Plan, token::settings::KeyManagerSettings};

/// The document.
pub(super) fn document(routes: &[Route]) -> Bytes {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut schemas = BTreeMap::new();
    for route in routes {
        let shapes = route.body.iter().chain(route.gives.iter().filter_map(|(_, shape)| shape.as_ref()));
        shapes.for_each(|shape| collect(*shape, &mut schemas));
        let mut operation = operation(route);
        for lead in &route.leads {
            let links = lead.operations.iter().map(|name| ((*name).to_owned(), link(route, lead, name, routes)));
            operation["responses"][lead.status.to_string()]["links"] = links.collect::<Map<_, _>>().into();
        }
        paths.entry(route.path).or_default().insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    for shape in [
        Shape { name: Problem::name, schema: <Problem as utoipa::PartialSchema>::schema, collect: Problem::schemas },
        Shape { name: Plan::name, schema: <Plan as utoipa::PartialSchema>::schema, collect: Plan::schemas },
    ] {
        collect(shape, &mut schemas);
    }
    schemas.extend(settings());
    schemas.extend(bags::schemas());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The operations of Key Managers, under WSO2's names. Errors are problems (RFC 9457).",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A token with the scopes tollgate:read, tollgate:manage or tollgate:tokens: the last issues tokens to whoever gives the client's secret, asks about tokens and revokes them; only tollgate:manage has tokens issued without that secret. On this machine the bootstrap key. Where client_ca is set, a client certificate may stand in its place.",
            } },
        },
    });
    serde_json::to_vec(&document).unwrap_or_default().into()
}

/// The settings of a key manager with all that they are made of. Here the name is the path's.
fn settings() -> Map<String, Value> {
    let generator =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut root = generator.into_generator().into_root_schema_for::<KeyManagerSettings>().to_value();
    let mut all = match root.pointer_mut("/components/schemas").map(Value::take) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    if let Some(root) = root.as_object_mut() {
        ["components", "$schema", "title", "required"].iter().for_each(|left_out| drop(root.remove(*left_out)));
    }
    all.insert("KeyManagerSettings".into(), root);
    all
}

fn collect(shape: Shape, schemas: &mut BTreeMap<String, Value>) {
    let mut found = vec![((shape.name)().into_owned(), (shape.schema)())];
    (shape.collect)(&mut found);
    for (name, schema) in found {
        schemas.entry(name).or_insert_with(|| json!(schema));
    }
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.operation,
        "summary": summary(route),
        "tags": [tag(route.path)],
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if let Some(body) = &route.body {
        let mut content = content(*body);
        if let (Some(narrowed), Some(schema)) = (&route.narrowed, content.pointer_mut("/application~1json/schema")) {
            *schema = json!({ "allOf": [schema.clone(), narrowed] });
        }
        operation["requestBody"] = json!({ "required": !route.body_optional, "content": content });
    }
    operation
}

/// The other parts of the path stay as they were.
fn link(from: &Route, lead: &Lead, operation: &str, routes: &[Route]) -> Value {
    let to = routes.iter().find(|route| route.operation == operation);
    let parts = to.into_iter().flat_map(|to| in_path(to.path)).map(|part| {
        let value = if part == lead.parameter { lead.value.to_owned() } else { format!("$request.path.{part}") };
        (part.to_owned(), Value::String(value))
    });
    json!({ "operationId": operation, "parameters": parts.collect::<Map<_, _>>(),
        "description": format!("{} tells its {}.", from.operation, lead.parameter) })
}

/// The names of a path's parameters.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn summary(route: &Route) -> String {
    let summary = format!("{}; needs the scope {}", route.operation, route.need.scope());
    match &route.by_our_rights {
        Some(proof) => format!("{summary}, without {} {}", proof.field, Need::Manage.scope()),
        None => summary,
    }
}

/// What the path is about: its last part that is no parameter, above its own sub-routes.
fn tag(path: &str) -> &'static str {
    let has = |part: &str| path.split('/').any(|it| it == part);
    if has("clients") {
        "clients"
    } else if has("tokens") || has("revocations") {
        "tokens"
    } else if has("resources") {
        "resources"
    } else if has("scopes") {
        "scopes"
    } else {
        "platform"
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut all: Vec<Value> = in_path(route.path)
        .map(|name| {
            if name == "id" && tag(route.path) == "tokens" {
                return json!({ "name": name, "in": "path", "required": true, "description": "As the list tells it.",
                    "schema": { "type": "string", "minLength": 2, "maxLength": 4096, "pattern": BASE64URL } });
            }
            let about = if name == "km" { "Name of a key manager." } else { "Percent-encoded once." };
            let schema = if name == "key" { "ScopeKey" } else { "Name" };
            json!({ "name": name, "in": "path", "required": true, "description": about,
                "schema": { "$ref": format!("#/components/schemas/{schema}") } })
        })
        .collect();
    all.extend(route.query.iter().map(|name| {
        let schema = match *name {
            "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
            "dry_run" => json!({ "type": "boolean", "default": false }),
            "cursor" => cursor(route.path),
            _ if route.path == USAGE => json!({ "type": "string", "description": of_usage(name) }),
            "api" => json!({ "type": "string", "pattern": APIS, "description": "Ids of APIs, parted by commas." }),
            _ => json!({ "type": "string" }),
        };
        let mut parameter = json!({ "name": name, "in": "query", "required": false, "schema": schema });
        if *name == "dry_run" {
            parameter["description"] = DRY_RUN.into();
        }
        parameter
    }));
    if route.conditional {
        all.push(header(
            "If-Match",
            json!({ "type": "string", "pattern": ETAGS }),
            "The ETag of what was read: 412 if it has changed since.",
        ));
        all.push(header("If-None-Match", json!({ "const": "*" }), "412 if it is there already."));
    }
    if route.changes && route.method == http::Method::POST {
        let key = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" });
        all.push(header(
            "Idempotency-Key",
            key,
            "Sent again within a day, the request is done once: 409 while it runs, 504 where it was cut short.",
        ));
    }
    all
}

/// What narrows the list of what is used.
fn of_usage(name: &str) -> &'static str {
    match name {
        "tier" => "All that have the tier of this name. One of tier, application and api is given.",
        "application" => "Limits of the application of this name, and of its subscriptions.",
        "api" => {
            "Limits of one API, of its resources and subscriptions: name:version, or its name where it has no version."
        }
        "issuer" => {
            "With subject: whose own counters are told too, where each user has one; the issuer of their tokens."
        }
        _ => "With issuer: the user, as tokens have it (sub).",
    }
}

/// What the last page gave. Rows that are numbered have their number, revocations their key in base64url, all others the
/// text that tells them apart.
fn cursor(path: &str) -> Value {
    match path.rsplit('/').next() {
        Some("pending" | "audit" | "usage") => json!({ "type": "string", "pattern": "^[0-9]{1,19}$" }),
        Some("revocations") => json!({ "type": "string", "pattern": BASE64URL }),
        _ => json!({ "type": "string" }),
    }
}

fn header(name: &str, schema: Value, about: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": about, "schema": schema })
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    for (status, shape) in &route.gives {
        let mut response =
            json!({ "description": if *status == 202 { "Some of it is tried again." } else { "Done." } });
        if let Some(shape) = shape {
            response["content"] = content(*shape);
        }
        responses.insert(status.to_string(), response);
    }
    if route.changes && !responses.contains_key("200") {
        let plan = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Plan" } } });
        responses.insert("200".into(), json!({ "description": "A dry run: what would be done.", "content": plan }));
    } else if route.changes
        && let Some(schema) =
            responses.get_mut("200").and_then(|it| it.pointer_mut("/content/application~1json/schema"))
    {
        *schema = json!({ "anyOf": [schema.clone(), { "$ref": "#/components/schemas/Plan" }] });
    }
    let problem = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let about = match route.method {
        http::Method::HEAD => json!({ "description": "There is none, or it cannot be told." }),
        _ => json!({ "description": "A problem (RFC 9457).", "content": problem }),
    };
    responses.insert("default".into(), about);
    Value::Object(responses)
}

fn content(shape: Shape) -> Value {
    let schema = format!("#/components/schemas/{}", (shape.name)());
    json!({ "application/json": { "schema": { "$ref": schema } } })
}

const DRY_RUN: &str = "Tell what would be done, and change nothing. The answer is the one that the change would get: at \
    an embedded provider in all; elsewhere all is done up to the first call that would change anything, and what is to be \
    changed is looked up where it can be read. What only the provider's own answer to the change would tell stays unknown, as \
    note says: passwords, codes and refresh tokens, a secret that cannot be compared, its policies and limits. What would wait \
    for a key manager that does not answer is pending, and does not wait. An Idempotency-Key is looked at, and not used.";
const USAGE: &str = "/v1/usage";
/// Visible ASCII characters, and spaces between them.
const ETAGS: &str = "^[!-~]([ -~]*[!-~])?$";
/// 1 to 100 ids.
const APIS: &str = r"^[^,\s\u0000-\u001f\u007f-\u009f][^,\u0000-\u001f\u007f-\u009f]{0,254}(,[^,\s\u0000-\u001f\u007f-\u009f][^,\u0000-\u001f\u007f-\u009f]{0,254}){0,99}$";
/// Whole bytes, the bits left over 0.
const BASE64URL: &str = "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::routes::routes, *};

    #[test]
    fn every_reference_leads_somewhere_and_operations_have_names_of_their_own() {
        let routes = routes();
        let document: Value = serde_json::from_slice(&document(&routes)).unwrap();
        let text = document.to_string();
        let known = document["components"]["schemas"].as_object().unwrap();
        for (at, _) in text.match_indices("#/components/schemas/") {
            let name = text[at + "#/components/schemas/".len()..].split('"').next().unwrap();
            assert!(known.contains_key(name), "{name}");
        }
        let names: HashSet<_> = routes.iter().map(|route| route.operation).collect();
        assert_eq!(names.len(), routes.len());
        let number: usize =
            document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(number, routes.len(), "each route is told");
    }

    #[test]
    fn a_link_leads_to_an_operation_with_all_that_its_path_needs() {
        let routes = routes();
        let document: Value = serde_json::from_slice(&document(&routes)).unwrap();
        let mut number = 0;
        for from in &routes {
            let method = from.method.as_str().to_ascii_lowercase();
            for lead in &from.leads {
                let answer = &document["paths"][from.path][&method]["responses"][lead.status.to_string()];
                assert!(from.gives.iter().any(|(status, _)| *status == lead.status), "{}", from.operation);
                for name in lead.operations {
                    let to = routes.iter().find(|route| route.operation == *name).unwrap_or_else(|| panic!("{name}"));
                    let link = &answer["links"][name];
                    assert_eq!(link["operationId"], *name, "{}", from.operation);
                    for part in in_path(to.path) {
                        let told = link["parameters"][part].as_str().unwrap_or_else(|| panic!("{name} {part}"));
                        let known =
                            told.strip_prefix("$request.path.").is_none_or(|of| in_path(from.path).any(|it| it == of));
                        assert!(known, "{} -> {name}: {told}", from.operation);
                    }
                    assert!(in_path(to.path).any(|part| part == lead.parameter), "{name} has {}", lead.parameter);
                    number += 1;
                }
            }
        }
        assert_eq!(number, answered_links(&document), "and there are no others");
        let register = &document["paths"]["/v1/key-managers/{km}/scopes"]["post"]["responses"]["201"];
        let expected = json!({ "km": "$request.path.km", "key": "$response.body#/key" });
        assert_eq!(register["links"]["getScopeByName"]["parameters"], expected);
    }

    fn answered_links(document: &Value) -> usize {
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let answers = operations.flat_map(|operation| operation["responses"].as_object().unwrap().values());
        answers.filter_map(|answer| Some(answer.get("links")?.as_object().unwrap().len())).sum()
    }

    #[test]
    fn a_key_managers_settings_take_no_other_schemas_place() {
        let mut ours = BTreeMap::new();
        for route in routes() {
            let shapes = route.body.iter().chain(route.gives.iter().filter_map(|(_, shape)| shape.as_ref()));
            shapes.for_each(|shape| collect(*shape, &mut ours));
        }
        let theirs = settings();
        let shared: Vec<_> = theirs.keys().filter(|name| ours.contains_key(*name)).collect();
        assert_eq!(shared, ["KeyManagerSettings"], "it stands for them in the table");
        assert!(theirs["KeyManagerSettings"]["properties"]["connector"].is_object());
    }

    #[test]
    fn all_operations_of_the_interface_have_a_route() {
        use crate::keymanager::Operation;
        // One request answers several of them.
        let with_others = ["getType", "setTenantDomain", "getScopesForAPIS"];
        let routes = routes();
        for operation in Operation::ALL {
            let name = operation.name();
            assert!(with_others.contains(&name) || routes.iter().any(|route| route.operation == name), "{name}");
        }
    }
}
