//! Election of API and resource by host, path and verb.

/// What a request's host, path and verb lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// An API and one of its resources.
    Found(Target),
    /// An API is served there, but no template or verb of it matches.
    NoResource {
        /// Index of the API.
        api: u32,
    },
    /// No API is served there.
    NoApi,
}

/// An elected resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Index of the API in the snapshot.
    pub api: u32,
    /// Index of the resource in the API.
    pub resource: u32,
    /// Bytes of the canonical path that are context and version.
    pub context_len: u32,
}

/// All mounts and templates.
#[derive(Debug)]
pub(super) struct Routes;
