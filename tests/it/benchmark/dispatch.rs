//! From a commit that the agent is told of to Nomad's acceptance, beside a dispatch through Nomad's API.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    figure::{Aim, Figure, middle_and_most, milliseconds, number},
    stage::Stage,
};

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let commits = if quick { 5 } else { 40 };
    let stage = Stage::new("dispatch", |config| config).await;
    let _agent = stage.agent().await;
    let model = stage.model().await;
    stage.register_copy("floor").await;
    let (mut consign, mut bare) = (Vec::new(), Vec::new());
    for number in 0..commits {
        bare.push(dispatch(&stage, &model).await);
        let id = format!("dispatch-{number:02}");
        stage.world.commit_action(&id, "note", "job = \"mock\"");
        let told = Timestamp::now();
        stage.tell().await;
        let job = stage.until(&id, "done").await;
        let child = job["attempts"][0]["nomad_job_id"].as_str().unwrap();
        consign.push(accepted(&stage, child).await.duration_since(told).try_into().unwrap());
    }
    let ((consign, consign_most), (bare, _)) = (middle_and_most(consign), middle_and_most(bare));
    let (consign, bare) = (milliseconds(consign), milliseconds(bare));
    vec![
        Figure::new("dispatch_ms", "from a push to Nomad's acceptance", consign).beside(format_args!(
            "{} ms for a dispatch through the API; {} ms for nine of ten",
            number(bare),
            number(milliseconds(consign_most))
        )),
        Figure::new("dispatch_overhead_ms", "what consign adds to a dispatch", consign - bare)
            .aiming(Aim::AtMost(50.0)),
    ]
}

/// Dispatches the same job without consign, and removes it.
async fn dispatch(stage: &Stage, model: &Value) -> Duration {
    let meta: Value = json!({ "consign": model["Meta"]["consign"], "args": model["Meta"]["args"] });
    let request = json!({ "Meta": meta, "Payload": model["Payload"] });
    let begun = Timestamp::now();
    let nomad = &stage.world.nomad;
    let answer = nomad.request(Method::PUT, "/v1/job/floor/dispatch", Some(request)).await.unwrap();
    let child = answer["DispatchedJobID"].as_str().unwrap();
    let took = accepted(stage, child).await.duration_since(begun).try_into().unwrap();
    let path = format!("/v1/job/{}?purge=true", child.replace('/', "%2F"));
    nomad.request(Method::DELETE, &path, None).await.unwrap();
    took
}

/// When Nomad accepted a dispatch, by its own record.
async fn accepted(stage: &Stage, child: &str) -> Timestamp {
    let path = format!("/v1/job/{}", child.replace('/', "%2F"));
    let submitted = stage.world.nomad.get(&path).await.unwrap()["SubmitTime"].as_i64().unwrap();
    Timestamp::from_nanosecond(submitted.into()).unwrap()
}
