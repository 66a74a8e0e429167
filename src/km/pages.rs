//! Lists that come in pages: the pages that follow are asked for too, and put together.

use serde_json::Value;

use super::{
    Error,
    call::Call,
    door::{Answer, Door, Terms},
};

/// Asks the door; of a list that is wanted whole until its last page.
pub(super) async fn ask(door: &Door, call: &Call, terms: &Terms) -> Result<Answer, Error> {
    let mut answer = door.ask(call, terms).await?;
    if !call.whole {
        return Ok(answer);
    }
    let mut last = None;
    while let Some(cursor) = answer.body.as_ref().and_then(cursor) {
        if last.as_ref().is_some_and(|last| cursor <= *last) {
            return Err(Error::Fault("the door's pages do not end".into()));
        }
        let more = door.ask(&following(call, &cursor), terms).await?;
        let (Some(body), Some(more)) = (&mut answer.body, more.body) else { break };
        join(body, more);
        last = Some(cursor);
    }
    // Of a single page the text stays as the door has sent it.
    if let (Some(_), Some(body)) = (last, &answer.body) {
        answer.text = body.to_string();
    }
    Ok(answer)
}

fn cursor(body: &Value) -> Option<String> {
    body.get("cursor")?.as_str().map(str::to_owned)
}

fn following(call: &Call, cursor: &str) -> Call {
    let mut query = call.query.clone();
    query.retain(|(name, _)| *name != "cursor");
    query.extend([("limit", MOST.to_string()), ("cursor", cursor.to_owned())]);
    Call { parts: call.parts.clone(), query, whole: true, ..Call::new(call.operation, []) }
}

/// Puts a page behind those before it.
fn join(whole: &mut Value, page: Value) {
    let Value::Object(mut page) = page else { return };
    if let (Some(items), Some(more)) = (whole.get_mut("items"), page.remove("items")) {
        append(items, more);
    }
    if let (Some(Value::Array(outcomes)), Some(Value::Array(more))) =
        (whole.get_mut("outcomes"), page.remove("outcomes"))
    {
        more.into_iter().for_each(|outcome| join_outcome(outcomes, outcome));
    }
    if let Some(whole) = whole.as_object_mut() {
        whole.remove("cursor");
        whole.extend(page.remove_entry("cursor"));
    }
}

/// What failed at one page has failed: half a list would pass for a whole one.
fn join_outcome(outcomes: &mut Vec<Value>, mut page: Value) {
    let of = |outcome: &Value| outcome.get("keyManager").cloned();
    let done = |outcome: &Value| outcome.get("outcome").is_some_and(|it| it == "done");
    match outcomes.iter_mut().find(|outcome| of(outcome) == of(&page)) {
        None => outcomes.push(page),
        Some(before) if !done(before) => {}
        Some(before) if !done(&page) => *before = page,
        Some(before) => {
            if let (Some(scopes), Some(more)) = (before.get_mut("result"), page.get_mut("result")) {
                append(scopes, more.take());
            }
        }
    }
}

fn append(to: &mut Value, more: Value) {
    match (to, more) {
        (Value::Array(to), Value::Array(more)) => to.extend(more),
        (Value::Object(to), Value::Object(more)) => to.extend(more),
        _ => {}
    }
}

/// So many the door gives at once.
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_are_one_list() {
        for (mut whole, page, expected) in [
            (
                json!({ "items": [1], "cursor": "a" }),
                json!({ "items": [2], "cursor": "b" }),
                json!({ "items": [1, 2], "cursor": "b" }),
            ),
            (json!({ "items": [1], "cursor": "a" }), json!({ "items": [] }), json!({ "items": [1] })),
            (
                json!({ "items": { "x": [1] }, "cursor": "x" }),
                json!({ "items": { "y": [] } }),
                json!({ "items": { "x": [1], "y": [] } }),
            ),
        ] {
            join(&mut whole, page);
            assert_eq!(whole, expected);
        }
    }

    #[test]
    fn what_fails_at_one_page_has_failed() {
        let done = |name: &str, keys: &[&str]| json!({ "keyManager": name, "outcome": "done", "result": keys });
        let failed = |name: &str| json!({ "keyManager": name, "outcome": "failed", "detail": "gone" });
        let mut whole = json!({ "outcomes": [done("a", &["1"]), done("b", &["1"]), failed("c")], "cursor": "1" });
        join(&mut whole, json!({ "outcomes": [done("a", &["2"]), failed("b"), done("c", &["2"]), done("d", &[])] }));
        let expected = [done("a", &["1", "2"]), failed("b"), failed("c"), done("d", &[])];
        assert_eq!(whole, json!({ "outcomes": expected }));
    }

    #[test]
    fn the_next_page_is_asked_behind_the_last() {
        let call = Call::new("getAllScopes", ["own".to_owned()]).ask("api", Some("a")).ask("cursor", Some("x"));
        let next = following(&call, "y");
        assert_eq!((next.operation, next.parts), ("getAllScopes", vec!["own".to_owned()]));
        let expected = [("api", "a".to_owned()), ("limit", "1000".to_owned()), ("cursor", "y".to_owned())];
        assert_eq!(next.query, expected);
    }
}
