//! One route: what of it is in the table.

use std::{borrow::Cow, future::Future, pin::Pin};

use http::Method;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::{
    Door,
    access::Need,
    answer::{Answer, Problem},
    ask::Ask,
};

pub(super) type Running<'d> = Pin<Box<dyn Future<Output = Answer> + Send + 'd>>;
pub(super) type Handler = for<'d> fn(&'d Door, Ask) -> Running<'d>;

/// A route.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// The operation, by WSO2's name where it has one.
    pub(super) operation: &'static str,
    pub(super) need: Need,
    pub(super) body: Option<Shape>,
    pub(super) body_optional: bool,
    /// What this route asks of the body beyond its schema.
    pub(super) narrowed: Option<Value>,
    /// Statuses of success, with what is answered.
    pub(super) gives: Vec<(u16, Option<Shape>)>,
    /// What can be asked next with what was answered.
    pub(super) leads: Vec<Lead>,
    pub(super) query: Vec<&'static str>,
    /// Whether it changes something: then `dry_run`, and on POST `Idempotency-Key`, are for it.
    pub(super) changes: bool,
    /// What has to be in the body for it not to be done by our own rights at the provider: those are lent to managers
    /// alone.
    pub(super) by_our_rights: Option<Proof>,
    /// Whether `If-Match` is for it.
    pub(super) conditional: bool,
    pub(super) run: Handler,
}

/// What a caller proves a right of its own by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    pub(super) field: &'static str,
    pub(super) is_given: fn(&Ask) -> Result<bool, Problem>,
}

/// Where an answer leads: a link of OpenAPI for each operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub(super) status: u16,
    pub(super) parameter: &'static str,
    pub(super) value: &'static str,
    pub(super) operations: &'static [&'static str],
}

/// A body, by its schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: fn() -> Cow<'static, str>,
    pub(super) schema: fn() -> RefOr<Schema>,
    pub(super) collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

fn shape<T: ToSchema>() -> Shape {
    Shape { name: T::name, schema: T::schema, collect: T::schemas }
}

impl Route {
    pub(super) fn new(method: Method, need: Need, path: &'static str, operation: &'static str, run: Handler) -> Self {
        Self {
            method,
            path,
            operation,
            need,
            body: None,
            body_optional: false,
            narrowed: None,
            gives: Vec::new(),
            leads: Vec::new(),
            query: Vec::new(),
            changes: false,
            by_our_rights: None,
            conditional: false,
            run,
        }
    }

    pub(super) fn takes<T: ToSchema>(self) -> Self {
        Self { body: Some(shape::<T>()), ..self }
    }

    pub(super) fn may_take<T: ToSchema>(self) -> Self {
        Self { body_optional: true, ..self.takes::<T>() }
    }

    pub(super) fn narrowed(self, by: Value) -> Self {
        Self { narrowed: Some(by), ..self }
    }

    pub(super) fn gives<T: ToSchema>(mut self, status: u16) -> Self {
        self.gives.push((status, Some(shape::<T>())));
        self
    }

    pub(super) fn empty(mut self, status: u16) -> Self {
        self.gives.push((status, None));
        self
    }

    /// After `status`, `parameter` of these operations is what `value` says (a runtime expression of OpenAPI).
    pub(super) fn leads(
        mut self,
        status: u16,
        parameter: &'static str,
        value: &'static str,
        operations: &'static [&'static str],
    ) -> Self {
        self.leads.push(Lead { status, parameter, value, operations });
        self
    }

    pub(super) fn paged(mut self) -> Self {
        self.query.extend(["limit", "cursor"]);
        self
    }

    pub(super) fn asks(mut self, query: &'static str) -> Self {
        self.query.push(query);
        self
    }

    pub(super) fn changes(mut self) -> Self {
        self.query.push("dry_run");
        Self { changes: true, ..self }
    }

    pub(super) fn conditional(self) -> Self {
        Self { conditional: true, ..self }
    }

    /// Without `field` it is done by our own rights.
    pub(super) fn proved_by(self, field: &'static str, is_given: fn(&Ask) -> Result<bool, Problem>) -> Self {
        Self { by_our_rights: Some(Proof { field, is_given }), ..self }
    }

    pub(super) fn takes_query(&self, name: &str) -> bool {
        self.query.contains(&name)
    }
}
