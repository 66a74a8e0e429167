//! Clients that a key manager has on record, and whose provider cannot be asked about them, though it can about others:
//! one that was mapped by its id alone, say.

use std::borrow::Cow;

use super::{
    Error, Managed, Operation, Result,
    rows::{Mapping, Mode},
};

/// What it is that a client is not found, where only its mapping knows of it and nothing is known by which its provider
/// could be asked.
pub(super) async fn unasked(managed: &Managed, mapping: Option<&Mapping>, operation: Operation, error: Error) -> Error {
    let (Error::NotFound(_), Some(mapping)) = (&error, mapping) else { return error };
    match managed.connector.unmanaged(&mapping.consumer_key).await {
        Ok(Some(reason)) => Error::Unsupported { operation, reason },
        Ok(None) => error,
        Err(error) => error,
    }
}

/// Why a client that was created here stays at its provider, where that cannot delete it; none: the provider had it
/// before.
pub(super) async fn left_at_provider(
    managed: &Managed,
    mapping: Option<&Mapping>,
) -> Result<Option<Cow<'static, str>>> {
    let mapping = mapping.ok_or(Error::NotFound("mapping"))?;
    if mapping.mode == Mode::Mapped {
        return Ok(None);
    }
    let reason = match managed.connector.cannot(Operation::DeleteApplication) {
        None => managed.connector.unmanaged(&mapping.consumer_key).await?,
        reason => reason,
    };
    match reason {
        None => Err(Error::Conflict("the client was created here: delete it instead".into())),
        reason => Ok(reason),
    }
}
