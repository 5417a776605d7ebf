//! GET of one object.

use super::{Answer, Request};
use crate::lab::status::Status;
use crate::lab::store::State;

pub fn get(state: &State, request: &Request) -> Result<Answer, Status> {
    super::list::reach(state, request.query.get("resourceVersion"))?;
    request.current(state).map(Answer::ok)
}
