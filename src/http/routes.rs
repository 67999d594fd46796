//! The one list of what the server answers, who may ask, and what the OpenAPI document says of it.

use axum::{
    Json,
    extract::DefaultBodyLimit,
    http::Method,
    routing::{MethodRouter, get, post},
};
use schemars::{Schema, SchemaGenerator};

use super::{
    App,
    access::Access,
    artifacts, events, formulas, health, hooks,
    jobs::{self, PAGE_LIMIT},
    logs, openapi, pause, readyz, scrape, submit,
    triggers::{self, Called, TriggerDetails, TriggerList},
    view::{
        ApproveRequest, FormulaList, JobDetails, JobList, PauseRequest, PauseState, RejectRequest,
        RetryRequest, Submitted,
    },
};
use crate::{lifecycle::Phase, tokens::Scope, webhook};

/// One thing that can be asked for.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) handler: MethodRouter<App>,
    /// What it does, in a sentence.
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    /// The headers that it heeds.
    pub(super) headers: Vec<Parameter>,
    /// The type of the request's body.
    pub(super) body: Option<TypeOf>,
    /// What it answers.
    pub(super) answers: Vec<Answer>,
    /// The statuses of the problems that it answers, besides those of its access.
    pub(super) problems: Vec<u16>,
}

/// A type's JSON Schema, as a component of the document.
pub(super) type TypeOf = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of the query or a header.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

/// A reply that is no problem.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Content,
}

/// What a reply's body is.
pub(super) enum Content {
    /// JSON of this type.
    Json(TypeOf),
    /// JSON that needs no schema of its own.
    Object,
    /// Text.
    Text,
    /// Server-Sent Events whose data is JSON of this type.
    Events(TypeOf),
    /// Bytes of whatever media type.
    Bytes,
    /// Metrics, as `OpenMetrics` has them.
    Metrics,
}

/// Every route.
#[expect(clippy::too_many_lines, reason = "one list, so that nothing stands beside it")]
pub(super) fn table() -> Vec<Route> {
    let read = Access::Scope(Scope::Read);
    let may_submit = Access::Scope(Scope::Submit);
    let admin = Access::Scope(Scope::Admin);
    let may_approve = Access::Scope(Scope::Approve);
    vec![
        Route {
            answers: vec![text(200, "it serves")],
            ..probe(Method::GET, "/livez", get(async || "ok\n"), "Whether the process serves.")
        },
        Route {
            answers: vec![text(200, "it takes work")],
            problems: vec![503],
            ..probe(Method::GET, "/readyz", get(readyz), "Whether the agent takes work.")
        },
        Route {
            answers: vec![object(200, "what is in trouble")],
            ..probe(Method::GET, "/health", get(health), "Whether something is in trouble.")
        },
        Route {
            answers: vec![object(200, "what is in trouble")],
            ..probe(Method::GET, "/healthz", get(health), "The same as /health.")
        },
        Route {
            answers: vec![Answer {
                status: 200,
                description: "the agent's metrics",
                content: Content::Metrics,
            }],
            problems: vec![500],
            ..probe(Method::GET, "/metrics", get(scrape::metrics), "What Prometheus reads.")
        },
        Route {
            answers: vec![object(202, "it looks")],
            // The HMAC of the body is its own authorization.
            problems: vec![401, 413],
            ..open(
                Method::POST,
                "/hooks/git",
                post(hooks::git_hook).layer(DefaultBodyLimit::max(hooks::HOOK_LIMIT)),
                "The forge's push webhook: look at the ops repo now. The body's HMAC authorizes it.",
            )
        },
        Route {
            answers: vec![object(202, "it looks")],
            problems: vec![401, 413, 503],
            ..open(
                Method::POST,
                "/hooks/forge",
                post(hooks::forge_hook).layer(DefaultBodyLimit::max(hooks::HOOK_LIMIT)),
                "The forge's webhook for issues: triggers look for their labels now. The body's HMAC authorizes it.",
            )
        },
        Route {
            answers: vec![object(200, "this document")],
            ..open(
                Method::GET,
                "/openapi.json",
                get(async || Json(openapi::document())),
                "The description of this API.",
            )
        },
        Route {
            query: vec![
                Parameter {
                    name: "phase",
                    description: "Jobs in this phase alone.",
                    schema: SchemaGenerator::subschema_for::<Phase>,
                },
                Parameter {
                    name: "limit",
                    description: "How many jobs the page has at most; 50 where nothing is given.",
                    schema: |_| limit_schema(),
                },
                Parameter {
                    name: "cursor",
                    description: "The `next` of the page before.",
                    schema: |_| ulid_schema(),
                },
            ],
            answers: vec![json(200, "a page of jobs", SchemaGenerator::subschema_for::<JobList>)],
            problems: vec![422],
            ..route(Method::GET, "/jobs", read, get(jobs::list), "Jobs, the newest first.")
        },
        Route {
            headers: vec![Parameter {
                name: "Idempotency-Key",
                description: "Keeps a repeated request from making a second job: with the same body it gives \
                              the same job, with another one 409. It is known for as long as the job.",
                schema: |_| key_schema(),
            }],
            body: Some(submit::schema),
            answers: vec![json(
                202,
                "it is on record; it waits, or runs when its turn comes",
                SchemaGenerator::subschema_for::<Submitted>,
            )],
            problems: vec![400, 404, 409, 413, 422],
            ..route(
                Method::POST,
                "/jobs",
                may_submit,
                post(submit::submit),
                "Takes an action without an id, with a formula of the ops repo as it is now.",
            )
        },
        Route {
            answers: vec![json(200, "the formulas", SchemaGenerator::subschema_for::<FormulaList>)],
            ..route(
                Method::GET,
                "/formulas",
                read,
                get(formulas::list),
                "The formulas of the ops repo as it is now, and what they take.",
            )
        },
        Route {
            answers: vec![json(200, "the job", SchemaGenerator::subschema_for::<JobDetails>)],
            problems: vec![404],
            ..route(Method::GET, "/jobs/{id}", read, get(jobs::show), "One job with all that is known of it.")
        },
        Route {
            query: vec![Parameter {
                name: "follow",
                description: "Whether to go on until the job has ended; else what there is now.",
                schema: SchemaGenerator::subschema_for::<bool>,
            }],
            answers: vec![text(
                200,
                "what the job printed: while it works as Nomad has it, then the kept end",
            )],
            problems: vec![404, 422],
            ..route(Method::GET, "/jobs/{id}/logs", read, get(logs::logs), "What a job printed.")
        },
        Route {
            answers: vec![
                bytes(200, "the file, of the media type that its name suggests"),
                bytes(206, "the part of it that `Range` asks for"),
            ],
            problems: vec![404, 416],
            ..route(
                Method::GET,
                "/jobs/{id}/artifacts/{*name}",
                read,
                get(artifacts::artifact),
                "A kept file of a job. Its `ETag` is the SHA-256.",
            )
        },
        Route {
            answers: vec![
                json(
                    200,
                    "it had ended already, and is as it was",
                    SchemaGenerator::subschema_for::<JobDetails>,
                ),
                json(
                    202,
                    "it is on record that the job shall end",
                    SchemaGenerator::subschema_for::<JobDetails>,
                ),
            ],
            problems: vec![404],
            ..route(
                Method::POST,
                "/jobs/{id}/cancel",
                may_submit,
                post(jobs::cancel),
                "Ends a job. It is over when its state is done or failed: then its allocation is dead and its \
                 grant withdrawn.",
            )
        },
        Route {
            query: vec![Parameter {
                name: "job",
                description: "This job alone, by its job id or action id, from what is known of it on.",
                schema: SchemaGenerator::subschema_for::<String>,
            }],
            headers: vec![Parameter {
                name: "Last-Event-ID",
                description: "The `id` of the last event that is known: those after it are told, also from \
                              before a restart. 0 is all that are kept.",
                schema: SchemaGenerator::subschema_for::<u64>,
            }],
            answers: vec![Answer {
                status: 200,
                description: "events `phase`, each the body of a webhook without result and artifacts; an event \
                              `gap` where some after Last-Event-ID are no longer kept",
                content: Content::Events(SchemaGenerator::subschema_for::<webhook::Body>),
            }],
            problems: vec![404, 422],
            ..route(
                Method::GET,
                "/events",
                read,
                get(events::events),
                "Each change of a job's phase as it happens, as Server-Sent Events.",
            )
        },
        Route {
            body: Some(SchemaGenerator::subschema_for::<ApproveRequest>),
            answers: vec![
                json(
                    200,
                    "the same person had approved it, and it ended",
                    SchemaGenerator::subschema_for::<JobDetails>,
                ),
                json(202, "it is on record that it may run", SchemaGenerator::subschema_for::<JobDetails>),
            ],
            problems: vec![400, 404, 409, 413, 422],
            ..route(
                Method::POST,
                "/jobs/{id}/approve",
                may_approve,
                post(jobs::approve),
                "Lets submitted work run that waits for an approval; 403 for whoever submitted it.",
            )
        },
        Route {
            body: Some(SchemaGenerator::subschema_for::<RejectRequest>),
            answers: vec![
                json(200, "it was rejected before, and ended", SchemaGenerator::subschema_for::<JobDetails>),
                json(
                    202,
                    "it is on record that it may not run",
                    SchemaGenerator::subschema_for::<JobDetails>,
                ),
            ],
            problems: vec![400, 404, 409, 413, 422],
            ..route(
                Method::POST,
                "/jobs/{id}/reject",
                may_approve,
                post(jobs::reject),
                "Ends submitted work that waits for an approval; 403 for whoever submitted it.",
            )
        },
        Route {
            body: Some(SchemaGenerator::subschema_for::<RetryRequest>),
            answers: vec![json(202, "it waits for its turn", SchemaGenerator::subschema_for::<JobDetails>)],
            problems: vec![400, 404, 409, 413, 422],
            ..route(
                Method::POST,
                "/jobs/{id}/retry",
                may_submit,
                post(jobs::retry),
                "Runs a job again that was launched and ended without success, with a new attempt.",
            )
        },
        Route {
            body: Some(SchemaGenerator::subschema_for::<PauseRequest>),
            answers: vec![json(200, "it is paused", SchemaGenerator::subschema_for::<PauseState>)],
            problems: vec![400, 413, 422],
            ..route(
                Method::POST,
                "/pause",
                admin,
                post(pause::pause),
                "Launches nothing more, also after a restart. What is launched goes on, and work is still taken.",
            )
        },
        Route {
            answers: vec![json(200, "it goes on", SchemaGenerator::subschema_for::<PauseState>)],
            ..route(Method::POST, "/resume", admin, post(pause::resume), "Lets a paused queue go on.")
        },
        Route {
            answers: vec![json(200, "the triggers", SchemaGenerator::subschema_for::<TriggerList>)],
            problems: vec![503],
            ..route(Method::GET, "/triggers", read, get(triggers::list), "What starts work by itself.")
        },
        Route {
            query: vec![Parameter {
                name: "events",
                description: "How many of its events are shown at most; 20 where nothing is given.",
                schema: |_| events_schema(),
            }],
            answers: vec![json(200, "the trigger", SchemaGenerator::subschema_for::<TriggerDetails>)],
            problems: vec![404, 422, 503],
            ..route(
                Method::GET,
                "/triggers/{trigger}",
                read,
                get(triggers::show),
                "One trigger with its latest events.",
            )
        },
        Route {
            query: vec![Parameter {
                name: "force",
                description: "Whether the cooldown is passed over; the trigger must allow it.",
                schema: SchemaGenerator::subschema_for::<bool>,
            }],
            headers: vec![
                Parameter {
                    name: "X-Consign-Signature",
                    description: "Instead of a token: sha256= and the HMAC-SHA256, in hexadecimal, of the timestamp, \
                                  a dot and the body.",
                    schema: SchemaGenerator::subschema_for::<String>,
                },
                Parameter {
                    name: "X-Consign-Timestamp",
                    description: "Seconds since 1970, at most 5 minutes from now.",
                    schema: SchemaGenerator::subschema_for::<String>,
                },
            ],
            body: Some(|_| schemars::json_schema!({ "type": "object" })),
            answers: vec![json(
                200,
                "it is on record, with what became of it",
                SchemaGenerator::subschema_for::<Called>,
            )],
            problems: vec![400, 401, 403, 404, 413, 422, 503],
            ..route(
                Method::POST,
                "/triggers/{trigger}",
                Access::Trigger,
                post(triggers::call).layer(DefaultBodyLimit::max(triggers::BODY_LIMIT)),
                "Calls a trigger, with its own token or signature or with one of scope submit; also at its own path.",
            )
        },
    ]
}

fn route(
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<App>,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        access,
        handler,
        summary,
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        answers: Vec::new(),
        problems: Vec::new(),
    }
}

fn open(method: Method, path: &'static str, handler: MethodRouter<App>, summary: &'static str) -> Route {
    route(method, path, Access::Open, handler, summary)
}

fn probe(method: Method, path: &'static str, handler: MethodRouter<App>, summary: &'static str) -> Route {
    route(method, path, Access::Probe, handler, summary)
}

fn json(status: u16, description: &'static str, content: TypeOf) -> Answer {
    Answer { status, description, content: Content::Json(content) }
}

fn object(status: u16, description: &'static str) -> Answer {
    Answer { status, description, content: Content::Object }
}

fn text(status: u16, description: &'static str) -> Answer {
    Answer { status, description, content: Content::Text }
}

fn bytes(status: u16, description: &'static str) -> Answer {
    Answer { status, description, content: Content::Bytes }
}

fn limit_schema() -> Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": PAGE_LIMIT })
}

fn events_schema() -> Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 0, "maximum": triggers::EVENTS_LIMIT })
}

fn key_schema() -> Schema {
    schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": submit::KEY_LIMIT })
}

fn ulid_schema() -> Schema {
    schemars::json_schema!({ "type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$" })
}
