//! Changes that name some members only: the others stay as they are. The door replaces the whole, and so it is read
//! before, and put only where it is still what was read (If-Match).

use http::StatusCode;
use serde_json::Value;

use super::{
    Error,
    call::Call,
    door::{Answer, Door, Terms},
    pages,
};

/// Asks the door; of a change of some members for the others first.
pub(super) async fn ask(door: &Door, call: &Call, terms: &Terms) -> Result<Answer, Error> {
    let Some(reading) = call.keeps else { return pages::ask(door, call, terms).await };
    let read = Call { parts: call.parts.clone(), ..Call::new(reading, []) };
    let now = door.ask(&read, &Terms::default()).await.map_err(unread)?;
    let body = over(now.body, call.body.as_ref())?;
    let terms = Terms { if_match: terms.if_match.clone().or(now.etag), ..terms.clone() };
    let whole = Call { parts: call.parts.clone(), body: Some(body), ..Call::new(call.operation, []) };
    door.ask(&whole, &terms).await
}

/// What was read, with the members that were named in the place of its own.
fn over(read: Option<Value>, named: Option<&Value>) -> Result<Value, Error> {
    let Some(Value::Object(mut whole)) = read else {
        return Err(Error::Fault("what is to be kept is unreadable".into()));
    };
    if let Some(Value::Object(named)) = named {
        whole.extend(named.clone());
    }
    Ok(Value::Object(whole))
}

/// What cannot be read can still be replaced as a whole.
fn unread(error: Error) -> Error {
    match error {
        Error::Refused { status: StatusCode::NOT_IMPLEMENTED, text } => Error::Refused {
            status: StatusCode::NOT_IMPLEMENTED,
            text: text + "\nwhat is not named cannot be kept: give the whole with --from",
        },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_named_takes_its_place_and_the_rest_stays() {
        let read = Some(json!({ "key": "a", "name": "A", "roles": "x,y" }));
        let named = json!({ "key": "a", "name": "B", "description": "new" });
        let expected = json!({ "key": "a", "name": "B", "roles": "x,y", "description": "new" });
        assert_eq!(over(read, Some(&named)).unwrap(), expected);
        assert!(over(None, Some(&named)).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_the_way_round() {
        let refused = |status| unread(Error::Refused { status, text: "no".into() }).to_string();
        assert!(refused(StatusCode::NOT_IMPLEMENTED).contains("--from"));
        assert_eq!(refused(StatusCode::NOT_FOUND), "no");
    }
}
