//! Election of API and resource by host, path and verb (design, step 2).
//!
//! Host exact before any, then the longest context, then the template segment by segment, then the verb.
//! What was elected in one step is never taken back in a later one.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use http::Method;
use memchr::memchr;

use super::{
    Api,
    template::{self, Part},
    trie::{Grower, NONE, Trie},
};

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

/// All contexts, and what is below them.
#[derive(Debug)]
pub(super) struct Routes {
    /// The contexts alone: the templates below each have a trie of their own.
    contexts: Trie,
    /// Where the contexts of a host begin; `end` of a node there is a mount, elsewhere a candidate.
    hosts: HashMap<Box<str>, u32>,
    /// Where the contexts for any host begin.
    any_host: u32,
    mounts: Vec<Mount>,
}

/// The templates of the APIs of a context; several contexts may share them.
#[derive(Debug)]
struct Mount {
    /// The first of its APIs, for when no template matches.
    api: u32,
    templates: Trie,
    resources: Box<[Candidate]>,
}

/// A resource of an elected shape; they differ in their verbs.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    api: u32,
    resource: u32,
    /// The next of the same shape.
    next: u32,
}

/// Where an API is served, and which of its resources have a good template.
#[derive(Debug)]
pub(super) struct Placement {
    /// Hosts as looked up; empty for any.
    pub(super) hosts: Vec<String>,
    /// Contexts, with version; canonical, empty for `/`.
    pub(super) contexts: Vec<String>,
    /// Indices of its resources.
    pub(super) resources: Vec<u32>,
}

/// Two resources that the same request would elect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conflict {
    /// API and resource declared later.
    pub(super) later: (u32, u32),
    /// API and resource declared earlier.
    pub(super) earlier: (u32, u32),
}

impl Routes {
    /// Lays out the APIs as `placements` says (one for each API), and tells which resources cannot be told apart.
    pub(super) fn build(apis: &[Api], placements: &[Placement]) -> (Self, Vec<Conflict>) {
        let mut layout = Layout::new(apis, placements);
        let mut laid_out: HashMap<Vec<u32>, u32> = HashMap::new();
        for ((host, context), group) in groups(placements) {
            let mount = match laid_out.get(&group) {
                Some(mount) => *mount,
                None => {
                    let mount = layout.add_mount(&group);
                    laid_out.insert(group, mount);
                    mount
                }
            };
            layout.add_context(host, context, mount);
        }
        layout.finish()
    }

    /// Elects. Allocates nothing; the cost does not grow with the number of APIs.
    pub(super) fn resolve(&self, apis: &[Api], host: &str, method: &Method, path: &str) -> Resolution {
        if !path.starts_with('/') {
            return Resolution::NoApi;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let Some((mount, context_len)) = self.mount(host, path) else { return Resolution::NoApi };
        let below = path[context_len..].strip_prefix('/');
        let Some(first) = mount.elect(ROOT, below) else {
            return Resolution::NoResource { api: mount.api };
        };
        match mount.by_verb(apis, first, method) {
            Some(found) => {
                Resolution::Found(Target { api: found.api, resource: found.resource, context_len: count(context_len) })
            }
            None => Resolution::NoResource { api: mount.resources[first as usize].api },
        }
    }

    fn mount(&self, host: &str, path: &str) -> Option<(&Mount, usize)> {
        if !self.hosts.is_empty() {
            let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
            if let Some(found) = self.hosts.get(host).and_then(|root| self.longest_context(*root, path)) {
                return Some(found);
            }
        }
        self.longest_context(self.any_host, path)
    }

    /// The mount with the longest context that `path` begins with, and that context's length.
    fn longest_context(&self, root: u32, path: &str) -> Option<(&Mount, usize)> {
        let mut node = root;
        let mut longest = (self.contexts.node(node).end, 0);
        let mut at = 0;
        while at < path.len() {
            let end = memchr(b'/', &path.as_bytes()[at + 1..]).map_or(path.len(), |n| at + 1 + n);
            match self.contexts.child(node, &path[at + 1..end]) {
                Some(child) => node = child,
                None => break,
            }
            if self.contexts.node(node).end != NONE {
                longest = (self.contexts.node(node).end, end);
            }
            at = end;
        }
        let (mount, length) = longest;
        (mount != NONE).then(|| (&self.mounts[mount as usize], length))
    }
}

impl Mount {
    /// The first resource of the shape elected for what is `below` a node; none: nothing is below.
    /// Looks at each node at most once, and is no deeper than the deepest template.
    fn elect(&self, node: u32, below: Option<&str>) -> Option<u32> {
        let here = self.templates.node(node);
        let Some(below) = below else {
            return [here.end, here.rest].into_iter().find(|first| *first != NONE);
        };
        let (segment, below) = match memchr(b'/', below.as_bytes()) {
            Some(end) => (&below[..end], Some(&below[end + 1..])),
            None => (below, None),
        };
        if let Some(child) = self.templates.child(node, segment)
            && let Some(found) = self.elect(child, below)
        {
            return Some(found);
        }
        if here.param != NONE
            && !segment.is_empty()
            && let Some(found) = self.elect(here.param, below)
        {
            return Some(found);
        }
        (here.rest != NONE).then_some(here.rest)
    }

    /// The resource of a shape that lists the verb; HEAD is GET where it is not listed.
    fn by_verb(&self, apis: &[Api], first: u32, method: &Method) -> Option<Candidate> {
        let listing = |verb: &Method| {
            self.candidates(first).find(|it| apis[it.api as usize].resources[it.resource as usize].lists(verb))
        };
        listing(method).or_else(|| if *method == Method::HEAD { listing(&Method::GET) } else { None })
    }

    fn candidates(&self, first: u32) -> impl Iterator<Item = Candidate> {
        chain(&self.resources, first)
    }
}

/// The resources of one shape.
fn chain(resources: &[Candidate], first: u32) -> impl Iterator<Item = Candidate> {
    let at = |place: u32| resources.get(place as usize).copied();
    std::iter::successors(at(first), move |it| at(it.next))
}

/// [`Routes`] while they are laid out.
struct Layout<'a> {
    apis: &'a [Api],
    placements: &'a [Placement],
    contexts: Grower,
    hosts: HashMap<Box<str>, u32>,
    any_host: u32,
    mounts: Vec<Mount>,
    conflicts: Vec<Conflict>,
}

impl<'a> Layout<'a> {
    fn new(apis: &'a [Api], placements: &'a [Placement]) -> Self {
        let mut contexts = Grower::new();
        Self {
            apis,
            placements,
            any_host: contexts.root(),
            contexts,
            hosts: HashMap::new(),
            mounts: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    fn add_mount(&mut self, group: &[u32]) -> u32 {
        self.mounts.push(Mount::build(self.apis, self.placements, group, &mut self.conflicts));
        count(self.mounts.len() - 1)
    }

    fn add_context(&mut self, host: &str, context: &str, mount: u32) {
        let mut node = self.any_host;
        if !host.is_empty() {
            node = *self.hosts.entry(host.into()).or_insert_with(|| self.contexts.root());
        }
        for segment in context.split('/').skip(1) {
            node = self.contexts.child(node, segment);
        }
        self.contexts.node_mut(node).end = mount;
    }

    fn finish(mut self) -> (Routes, Vec<Conflict>) {
        self.mounts.shrink_to_fit();
        self.conflicts.sort_unstable();
        self.conflicts.dedup();
        let Self { hosts, any_host, mounts, .. } = self;
        (Routes { contexts: self.contexts.finish(), hosts, any_host, mounts }, self.conflicts)
    }
}

impl Mount {
    /// The templates of all APIs of `group` in one tree.
    fn build(apis: &[Api], placements: &[Placement], group: &[u32], conflicts: &mut Vec<Conflict>) -> Self {
        let mut templates = Grower::new();
        templates.root();
        let mut resources: Vec<Candidate> = Vec::new();
        let lookup = |(api, resource): (u32, u32)| &apis[api as usize].resources[resource as usize];
        let all = group.iter().flat_map(|&api| placements[api as usize].resources.iter().map(move |&n| (api, n)));
        for of in all {
            let Ok(parts) = template::template(&lookup(of).template) else { continue };
            let place = count(resources.len());
            let next = std::mem::replace(templates.leaf(&parts), place);
            let earlier = chain(&resources, next).map(|it| (it.api, it.resource));
            let unclear = earlier.filter(|earlier| lookup(of).shares_verb_with(lookup(*earlier)));
            conflicts.extend(unclear.map(|earlier| Conflict { later: of, earlier }));
            resources.push(Candidate { api: of.0, resource: of.1, next });
        }
        Self { api: group[0], templates: templates.finish(), resources: resources.into() }
    }
}

impl Grower {
    /// Where it stands what matches a template.
    fn leaf(&mut self, parts: &[Part<'_>]) -> &mut u32 {
        let mut node = ROOT;
        let mut rest = false;
        for part in parts {
            match part {
                Part::Exact(text) => node = self.child(node, text),
                Part::Param => node = self.param(node),
                Part::Rest => rest = true,
            }
        }
        let node = self.node_mut(node);
        if rest { &mut node.rest } else { &mut node.end }
    }
}

/// Where the templates of a mount begin.
const ROOT: u32 = 0;

/// The APIs of each host and context, in declared order.
fn groups(placements: &[Placement]) -> BTreeMap<(&str, &str), Vec<u32>> {
    let mut groups: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for (api, placement) in placements.iter().enumerate() {
        let any = placement.hosts.is_empty().then_some("");
        for host in placement.hosts.iter().map(String::as_str).chain(any) {
            for context in &placement.contexts {
                let group = groups.entry((host, context)).or_default();
                // A host may be listed twice.
                if group.last() != Some(&count(api)) {
                    group.push(count(api));
                }
            }
        }
    }
    groups
}

/// Tables are indexed with 32 bits; no configuration has four billion rows.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::build, *};

    /// How well a template fits a path, segment by segment: exact 0, parameter 1, the rest 3, the end 2.
    fn fit(template: &str, path: &[&str]) -> Option<Vec<u8>> {
        let mut ranks = Vec::new();
        let mut segments = path.iter();
        for part in template.split('/').filter(|part| !part.is_empty()) {
            if part == "*" {
                ranks.push(3);
                return Some(ranks);
            }
            let segment = segments.next()?;
            match part {
                "{p}" => ranks.push(1),
                exact if exact == *segment => ranks.push(0),
                _ => return None,
            }
        }
        ranks.push(2);
        segments.next().is_none().then_some(ranks)
    }

    proptest! {
        #[test]
        fn the_best_fitting_template_is_elected(
            templates in prop::collection::btree_set("(/(a|b|c|\\{p\\})){0,4}(/\\*)?", 1..14),
            paths in prop::collection::vec(prop::collection::vec("[a-d]", 0..6), 1..12),
        ) {
            let resources: Vec<String> = templates.iter()
                .map(|template| if template.is_empty() { "/" } else { template })
                .map(|template| format!("{{ path = \"{template}\" }}"))
                .collect();
            let tables = build(&format!(
                "[[apis]]\nname = 'A'\ncontext = '/x'\nupstream = 'echo:'\nresources = [{}]", resources.join(", "),
            )).expect("templates of different shapes");
            for path in paths {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let best = templates.iter().zip(0..).filter_map(|(it, n)| Some((fit(it, &path)?, n))).min();
                let expected = match best {
                    Some((_, resource)) => Resolution::Found(Target { api: 0, resource, context_len: 2 }),
                    None => Resolution::NoResource { api: 0 },
                };
                let sent = path.iter().fold("/x".to_owned(), |sent, segment| sent + "/" + segment);
                prop_assert_eq!(tables.resolve("", &Method::GET, &sent), expected, "{} of {:?}", sent, templates);
                prop_assert_eq!(tables.resolve("", &Method::GET, &(sent + "/")), expected);
            }
        }
    }
}
