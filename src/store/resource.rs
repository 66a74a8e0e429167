//! Election of API and resource by host, path and verb (design, step 2).
//!
//! Host exact before any, then the longest context, then the template segment by segment, then the verb.
//! What was elected in one step is never taken back in a later one.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use hashbrown::HashMap;
use http::Method;
use memchr::{memchr, memrchr};

use super::{
    ApiRow,
    rows::{Finder, Rows, RowsBuilder, number},
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

/// All contexts, and what is below them. Versions share what a change leaves as it is.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    contexts: Rows<Context>,
    finder: Finder,
    /// Segments of the longest context there has been.
    deepest: usize,
    /// How many of the contexts are of a host.
    hosted: usize,
    /// Rows that nothing leads to.
    free: Arc<Vec<u32>>,
}

/// Where APIs are served.
#[derive(Debug, Clone)]
struct Context {
    /// Empty for any.
    host: Arc<str>,
    /// Canonical, with the version; empty for `/`.
    path: Arc<str>,
    mount: Arc<Mount>,
}

/// The templates of the APIs of a context; several contexts may share them.
#[derive(Debug)]
struct Mount {
    /// Its APIs, in their order; the first for when no template matches.
    apis: Box<[u32]>,
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
#[derive(Debug, Clone, Default)]
pub(super) struct Placement {
    /// Hosts as looked up; empty for any.
    pub(super) hosts: Vec<String>,
    /// Contexts, with version; canonical, empty for `/`.
    pub(super) contexts: Vec<String>,
    /// Indices of its resources; none: all.
    pub(super) resources: Option<Vec<u32>>,
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
    pub(super) fn build(apis: &[ApiRow], placements: &[Placement]) -> (Self, Vec<Conflict>) {
        let mut conflicts = Vec::new();
        let mut laid_out: HashMap<Vec<u32>, Arc<Mount>> = HashMap::new();
        let mut contexts = RowsBuilder::new();
        let (mut deepest, mut hosted) = (0, 0);
        for ((host, path), group) in groups(placements) {
            deepest = deepest.max(path.matches('/').count());
            hosted += usize::from(!host.is_empty());
            let mount = laid_out.entry(group).or_insert_with_key(|group| {
                Arc::new(Mount::build(apis, &|api| placements.get(api as usize), group, &mut conflicts))
            });
            contexts.push(Context { host: host.into(), path: path.into(), mount: Arc::clone(mount) });
        }
        conflicts.sort_unstable();
        conflicts.dedup();
        let contexts = contexts.finish();
        let mut finder = Finder::default();
        for row in 0..number(contexts.len()) {
            index(&contexts, &mut finder, row);
        }
        (Self { contexts, finder, deepest, hosted, free: Arc::default() }, conflicts)
    }

    /// Serves an API as `new` says instead of as `old` did, and tells which resources cannot be told apart. `apis` and
    /// `placement` are those of all APIs, and of this one the new.
    pub(super) fn change<'p>(
        &mut self,
        apis: &[ApiRow],
        placement: &dyn Fn(u32) -> Option<&'p Placement>,
        (api, old, new): (u32, &Placement, &Placement),
    ) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let mut laid_out: HashMap<Vec<u32>, Arc<Mount>> = HashMap::new();
        let served: BTreeSet<(&str, &str)> = new.contexts().collect();
        let touched: BTreeSet<(&str, &str)> = old.contexts().chain(served.iter().copied()).collect();
        for (host, path) in touched {
            let row = self.find(host, path);
            let before = row.map_or(&[][..], |row| &self.contexts[row as usize].mount.apis);
            let mut group: Vec<u32> = before.iter().copied().filter(|it| *it != api).collect();
            if served.contains(&(host, path)) {
                group.push(api);
                group.sort_unstable();
            }
            if group.is_empty() {
                self.remove(host, path);
                continue;
            }
            let mount = laid_out
                .entry(group)
                .or_insert_with_key(|group| Arc::new(Mount::build(apis, placement, group, &mut conflicts)));
            self.put(row, Context { host: host.into(), path: path.into(), mount: Arc::clone(mount) });
        }
        conflicts.sort_unstable();
        conflicts.dedup();
        conflicts
    }

    fn put(&mut self, row: Option<u32>, context: Context) {
        if let Some(row) = row {
            self.contexts.put(row as usize, context);
            return;
        }
        self.deepest = self.deepest.max(context.path.matches('/').count());
        self.hosted += usize::from(!context.host.is_empty());
        let row = Arc::make_mut(&mut self.free).pop().unwrap_or_else(|| number(self.contexts.len()));
        self.contexts.put(row as usize, context);
        index(&self.contexts, &mut self.finder, row);
    }

    fn remove(&mut self, host: &str, path: &str) {
        let Some(row) = self.find(host, path) else { return };
        self.finder.remove(self.finder.hash(Served { host, path }), row);
        self.hosted -= usize::from(!host.is_empty());
        Arc::make_mut(&mut self.free).push(row);
    }

    /// Elects. Allocates nothing; the cost does not grow with the number of APIs.
    pub(super) fn resolve(&self, apis: &[ApiRow], host: &str, method: &Method, path: &str) -> Resolution {
        if !path.starts_with('/') {
            return Resolution::NoApi;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let Some((mount, context_len)) = self.mount(host, path) else { return Resolution::NoApi };
        let below = path[context_len..].strip_prefix('/');
        let Some(first) = mount.elect(ROOT, below) else {
            return Resolution::NoResource { api: mount.apis[0] };
        };
        match mount.by_verb(apis, first, method) {
            Some(found) => {
                Resolution::Found(Target { api: found.api, resource: found.resource, context_len: count(context_len) })
            }
            None => Resolution::NoResource { api: mount.resources[first as usize].api },
        }
    }

    fn mount(&self, host: &str, path: &str) -> Option<(&Mount, usize)> {
        if self.hosted > 0 {
            let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
            if !host.is_empty()
                && let Some(found) = self.longest_context(host, path)
            {
                return Some(found);
            }
        }
        self.longest_context("", path)
    }

    /// The mount with the longest context that `path` begins with, and that context's length.
    fn longest_context(&self, host: &str, path: &str) -> Option<(&Mount, usize)> {
        let mut end = 0;
        for _ in 0..self.deepest {
            match path.as_bytes().get(end + 1..) {
                Some(rest) => end = memchr(b'/', rest).map_or(path.len(), |n| end + 1 + n),
                None => break,
            }
        }
        loop {
            if let Some(row) = self.find(host, &path[..end]) {
                return self.contexts.get(row as usize).map(|context| (&*context.mount, end));
            }
            end = memrchr(b'/', &path.as_bytes()[..end])?;
        }
    }

    #[inline]
    fn find(&self, host: &str, path: &str) -> Option<u32> {
        let is_it = |row: u32| self.contexts.get(row as usize).is_some_and(|it| *it.path == *path && *it.host == *host);
        self.finder.find(self.finder.hash(Served { host, path }), is_it)
    }
}

/// What a context is found by.
struct Served<'a> {
    host: &'a str,
    path: &'a str,
}

impl Hash for Served<'_> {
    /// In one piece where there is no host, as for most; what is found is compared anyway.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.path.as_bytes());
        if !self.host.is_empty() {
            state.write(self.host.as_bytes());
        }
    }
}

fn index(contexts: &Rows<Context>, finder: &mut Finder, row: u32) {
    let key = |row: u32| {
        let context = contexts.get(row as usize);
        context.map_or(Served { host: "", path: "" }, |it| Served { host: &it.host, path: &it.path })
    };
    finder.add(finder.hash(key(row)), row, |hasher, row| hasher.hash_one(key(row)));
}

impl Placement {
    /// Each host and context.
    fn contexts(&self) -> impl Iterator<Item = (&str, &str)> {
        let any = self.hosts.is_empty().then_some("");
        let hosts = self.hosts.iter().map(String::as_str).chain(any);
        hosts.flat_map(|host| self.contexts.iter().map(move |context| (host, context.as_str())))
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
    fn by_verb(&self, apis: &[ApiRow], first: u32, method: &Method) -> Option<Candidate> {
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

impl Mount {
    /// The templates of all APIs of `group` in one tree.
    fn build<'p>(
        apis: &[ApiRow],
        placement: &dyn Fn(u32) -> Option<&'p Placement>,
        group: &[u32],
        conflicts: &mut Vec<Conflict>,
    ) -> Self {
        let mut templates = Grower::new();
        templates.root();
        let mut resources: Vec<Candidate> = Vec::new();
        let lookup = |(api, resource): (u32, u32)| &apis[api as usize].resources[resource as usize];
        for &api in group {
            let sound = placement(api).and_then(|placement| placement.resources.as_deref());
            for n in 0..count(apis[api as usize].resources.len()) {
                let of = (api, n);
                if sound.is_some_and(|sound| !sound.contains(&n)) {
                    continue;
                }
                let Ok(parts) = template::template(&lookup(of).template) else { continue };
                let place = count(resources.len());
                let next = std::mem::replace(templates.leaf(&parts), place);
                let earlier = chain(&resources, next).map(|it| (it.api, it.resource));
                let unclear = earlier.filter(|earlier| lookup(of).shares_verb_with(lookup(*earlier)));
                conflicts.extend(unclear.map(|earlier| Conflict { later: of, earlier }));
                resources.push(Candidate { api, resource: n, next });
            }
        }
        Self { apis: group.into(), templates: templates.finish(), resources: resources.into() }
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
        for (host, context) in placement.contexts() {
            let group = groups.entry((host, context)).or_default();
            // A host may be listed twice.
            if group.last() != Some(&count(api)) {
                group.push(count(api));
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
    use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

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
        // Cases that failed once lie beside this file.
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(WithSource("regressions"))),
            ..ProptestConfig::default()
        })]
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
