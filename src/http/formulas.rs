//! `/formulas`: what may be submitted.

use axum::{Json, extract::State};

use super::{App, problem::Problem, view::FormulaList};

pub(super) async fn list(State(app): State<App>) -> Result<Json<FormulaList>, Problem> {
    let desk = app.desk.get().ok_or_else(Problem::not_now)?;
    let (revision, formulas) = desk.formulas().await?;
    Ok(Json(FormulaList::of(&revision, formulas)))
}
