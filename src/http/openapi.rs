//! The OpenAPI document, made from the routes and the types that they answer with.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    access::Access,
    problem,
    routes::{self, Answer, Content, Parameter, Route},
    view::ProblemDocument,
};

/// The document, OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::table() {
        let operation = operation(&route, &mut schemas);
        // A name with slashes is one parameter.
        let methods = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "consign",
            "description": "Jobs of a consign agent. Errors are problem documents (RFC 9457).",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `consign token create`. Each operation needs the scope that it names.",
                },
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = in_path(route.path).map(path_parameter).collect();
    parameters.extend(route.query.iter().map(|parameter| parameter_in("query", parameter, schemas)));
    parameters.extend(route.headers.iter().map(|parameter| parameter_in("header", parameter, schemas)));
    let mut responses: Map<String, Value> =
        route.answers.iter().map(|answer| (answer.status.to_string(), response(answer, schemas))).collect();
    let mut refused = route.problems.clone();
    match route.access {
        Access::Probe => {}
        Access::Open => refused.push(429),
        Access::Scope(_) | Access::Trigger => refused.extend([400, 401, 403, 429, 503]),
    }
    for status in refused {
        responses.insert(status.to_string(), refusal(status, schemas));
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "responses": responses,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = route.body {
        let schema = body(schemas);
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema } } });
    }
    match route.access {
        Access::Open | Access::Probe => {}
        Access::Scope(scope) => operation["security"] = json!([{ "token": [scope.as_str()] }]),
        // A trigger's own token or signature does as well.
        Access::Trigger => operation["security"] = json!([{ "token": ["submit"] }, {}]),
    }
    operation
}

/// The names in braces in a path.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    let braced = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    braced.map(|name| name.trim_start_matches('*'))
}

fn path_parameter(name: &str) -> Value {
    let description = match name {
        "id" => "A job id, or an action id.",
        "trigger" => "A trigger's name.",
        _ => "The file's path relative to the task's working directory; its slashes may be escaped.",
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": { "type": "string" },
    })
}

fn parameter_in(place: &str, parameter: &Parameter, schemas: &mut SchemaGenerator) -> Value {
    let schema = (parameter.schema)(schemas);
    json!({ "name": parameter.name, "in": place, "description": parameter.description, "schema": schema })
}

fn response(answer: &Answer, schemas: &mut SchemaGenerator) -> Value {
    let content = match answer.content {
        Content::Json(schema) => json!({ "application/json": { "schema": schema(schemas) } }),
        Content::Object => json!({ "application/json": { "schema": { "type": "object" } } }),
        Content::Metrics => json!({ "application/openmetrics-text": { "schema": { "type": "string" } } }),
        Content::Events(data) => {
            // OpenAPI 3.1 has no words for the events themselves: `contentSchema` is of each one's data.
            let schema = json!({
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": data(schemas),
            });
            json!({ "text/event-stream": { "schema": schema } })
        }
        Content::Bytes => json!({ "*/*": {} }),
        Content::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    json!({ "description": answer.description, "content": content })
}

fn refusal(status: u16, schemas: &mut SchemaGenerator) -> Value {
    let schema = schemas.subschema_for::<ProblemDocument>();
    let mut content = Map::new();
    content.insert(problem::CONTENT_TYPE.to_owned(), json!({ "schema": schema }));
    json!({ "description": why(status), "content": content })
}

const fn why(status: u16) -> &'static str {
    match status {
        400 => "the request cannot be read",
        401 => "there is no authorization, or one that is not known or has expired",
        403 => "the token has not the scope, or the trigger cannot be forced",
        404 => "there is no such job, formula, artifact or trigger",
        409 => "the job is not in a state for it, or the idempotency key stands for another request",
        413 => "the body is too large",
        416 => "the range lies outside of the file",
        422 => "a parameter or a field makes no sense",
        429 => "that was too often; Retry-After says how many seconds to wait",
        500 => "the agent's store failed",
        _ => "the agent is starting, ending, or in trouble",
    }
}

/// Such as `post_jobs_id_retry`.
fn operation_id(route: &Route) -> String {
    let words =
        route.path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = route.method.as_str().to_ascii_lowercase();
    words.fold(method, |id, word| format!("{id}_{word}"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf};

    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
            _ => {}
        }
    }

    #[test]
    fn the_committed_document_is_the_present_one() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let present = format!("{:#}\n", document());
        if std::env::var_os("CONSIGN_REGENERATE").is_some() {
            std::fs::write(&path, &present).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == present,
            "docs/openapi.json is out of date: CONSIGN_REGENERATE=1 cargo test --lib openapi"
        );
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.contains("#/components/schemas/Problem"), "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let names: Vec<String> = routes::table().iter().map(operation_id).collect();
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }
}
