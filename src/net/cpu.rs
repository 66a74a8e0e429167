//! How many processors there are to use: the container's quota (cgroup v2 and v1) and the affinity mask.
//!
//! The standard library knows both, but rounds a quota of 1.5 processors down and leaves a third of it
//! unused. Here it is rounded up.
//!
//! And who goes first where they do not suffice.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use rustix::process::{getpriority_process, setpriority_process};

/// Lowers the priority of the present thread: its work may wait for a request, and no request for it where both have one
/// core. Where the system does not let us, all goes on as it is.
pub fn give_way() {
    if getpriority_process(None).is_ok_and(|present| present < LOW_PRIORITY) {
        let _ = setpriority_process(None, LOW_PRIORITY);
    }
}

/// Processors that this process may use, at least 1.
pub fn available() -> usize {
    available_to(Path::new("/proc/self"))
}

/// The same of the process that `proc` tells of.
fn available_to(proc: &Path) -> usize {
    let quota = quota(&proc.join("cgroup"), &proc.join("mountinfo"));
    combined(affinity(&proc.join("status")), quota, || thread::available_parallelism().map_or(1, usize::from))
}

/// The smaller of both; what the standard library says where `/proc` does not tell.
fn combined(affinity: Option<usize>, quota: Option<f64>, otherwise: impl FnOnce() -> usize) -> usize {
    let most = affinity.unwrap_or_else(otherwise);
    // A float beyond the range becomes its end, which the minimum then cuts.
    quota.map_or(most, |quota| most.min(quota.ceil() as usize)).max(1)
}

fn affinity(status: &Path) -> Option<usize> {
    let status = fs::read_to_string(status).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    count_list(list.trim())
}

/// Counts a list such as `0-3,8,10-11`.
fn count_list(list: &str) -> Option<usize> {
    list.split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

/// The smallest quota that any of the process's groups sets, in processors.
fn quota(cgroup: &Path, mountinfo: &Path) -> Option<f64> {
    let (cgroup, mountinfo) = (fs::read_to_string(cgroup).ok()?, fs::read_to_string(mountinfo).ok()?);
    mountinfo.lines().filter_map(|line| Hierarchy::of(line, &cgroup)).filter_map(|h| h.quota()).min_by(f64::total_cmp)
}

/// A mounted tree of groups that may limit processor time.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    mount: PathBuf,
    /// The process's group below `mount`.
    group: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Hierarchy {
    /// The hierarchy of a line of `mountinfo`, with the process's group in it.
    fn of(mount: &str, cgroup: &str) -> Option<Self> {
        let (mount, kind) = mount.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "cpu") => Version::One,
            _ => return None,
        };
        // Without a namespace of its own the process sees the host's path, of which the container's
        // mount shows only the part below `root`.
        let group = Path::new(group(cgroup, version)?);
        let group = group.strip_prefix(root).or_else(|_| group.strip_prefix("/")).unwrap_or(group);
        Some(Self { version, mount: point.into(), group: group.into() })
    }

    /// The smallest quota from the group up to the root of the mount.
    fn quota(&self) -> Option<f64> {
        let groups = self.group.ancestors().map(|group| self.mount.join(group));
        groups.filter_map(|group| self.version.quota(&group)).min_by(f64::total_cmp)
    }
}

impl Version {
    fn quota(self, group: &Path) -> Option<f64> {
        let read = |file| fs::read_to_string(group.join(file)).ok();
        match self {
            Self::Two => {
                let max = read("cpu.max")?;
                let (quota, period) = max.trim().split_once(' ')?;
                ratio(quota, period)
            }
            Self::One => ratio(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()),
        }
    }
}

/// The process's group in the hierarchy of that version, from `/proc/self/cgroup`.
fn group(cgroup: &str, version: Version) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let matches = match version {
            Version::Two => controllers.is_empty(),
            Version::One => controllers.split(',').any(|c| c == "cpu"),
        };
        matches.then_some(group)
    })
}

/// Quota over period; none for `max` (v2) and −1 (v1), which are no limit.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// Of nice(1).
const LOW_PRIORITY: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_and_never_exceeds_the_processors() {
        for (affinity, quota, expected) in [
            (Some(8), None, 8),
            (Some(8), Some(1.5), 2),
            (Some(8), Some(2.0), 2),
            (Some(8), Some(0.1), 1),
            (Some(2), Some(64.0), 2),
            (Some(2), Some(f64::MAX), 2),
            (None, Some(3.0), 3),
            (None, None, 5),
            (Some(0), None, 1),
        ] {
            assert_eq!(combined(affinity, quota, || 5), expected, "{affinity:?} {quota:?}");
        }
        assert!(available() >= 1);
    }

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, expected) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("", None), ("3-1", None), ("a", None)]
        {
            assert_eq!(count_list(list), expected, "{list}");
        }
    }

    #[test]
    fn limits_are_read_and_their_absence_is_none() {
        for (quota, period, expected) in [
            ("150000", "100000", Some(1.5)),
            ("max", "100000", None),
            ("-1", "100000", None),
            ("0", "100000", None),
            ("100000", "0", None),
            ("", "", None),
        ] {
            assert_eq!(ratio(quota, period), expected, "{quota} {period}");
        }
    }

    #[test]
    fn hierarchies_are_found() {
        let two = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let one = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro master:11 - cgroup cgroup rw,cpu,cpuacct";
        let found = |mount, cgroup| Hierarchy::of(mount, cgroup).map(|h| (h.version, h.mount, h.group));
        let expected = |version, mount: &str, group: &str| Some((version, mount.into(), group.into()));

        assert_eq!(found(two, "0::/\n"), expected(Version::Two, "/sys/fs/cgroup", ""));
        assert_eq!(found(two, "0::/kube/pod1\n"), expected(Version::Two, "/sys/fs/cgroup", "kube/pod1"));
        let host = "9:name=systemd:/x\n3:cpuset:/y\n2:cpu,cpuacct:/docker/abc/inner\n0::/z\n";
        assert_eq!(found(one, host), expected(Version::One, "/sys/fs/cgroup/cpu,cpuacct", "inner"));
        assert_eq!(found(one, "1:cpuset:/y\n"), None);
        let cpuset = "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset";
        assert_eq!(found(cpuset, host), None);
        assert_eq!(found("22 27 0:21 / /proc rw,relatime - proc proc rw", host), None);
        assert_eq!(found("nonsense", host), None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_holds() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let (mount, pod) = (dir.path(), dir.path().join("kube/pod"));
        fs::create_dir_all(&pod)?;
        fs::write(mount.join("kube/cpu.max"), "250000 100000\n")?;
        fs::write(pod.join("cpu.max"), "max 100000\n")?;
        let files = (mount.join("cgroup"), mount.join("mountinfo"));
        fs::write(&files.0, "0::/kube/pod\n")?;
        fs::write(&files.1, format!("31 23 0:28 / {} rw - cgroup2 cgroup2 rw\n", mount.display()))?;
        assert_eq!(quota(&files.0, &files.1), Some(2.5));
        fs::write(pod.join("cpu.max"), "50000 100000\n")?;
        assert_eq!(quota(&files.0, &files.1), Some(0.5));

        fs::write(pod.join("cpu.cfs_quota_us"), "300000\n")?;
        fs::write(pod.join("cpu.cfs_period_us"), "100000\n")?;
        fs::write(&files.0, "2:cpu,cpuacct:/kube/pod\n")?;
        fs::write(&files.1, format!("31 23 0:28 / {} rw - cgroup cgroup rw,cpu\n", mount.display()))?;
        assert_eq!(quota(&files.0, &files.1), Some(3.0));
        assert_eq!(quota(Path::new("/nowhere"), &files.1), None);
        Ok(())
    }

    /// A process in a container whose groups are as these files say; `MOUNT` is where they are mounted.
    fn container(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> usize {
        let dir = tempfile::tempdir().expect("a directory");
        let mount = dir.path().join("mount");
        let put = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        put(&dir.path().join("cgroup"), cgroup);
        put(&dir.path().join("mountinfo"), &mountinfo.replace("MOUNT", &mount.display().to_string()));
        put(&dir.path().join("status"), "Name:\ttollgate\nCpus_allowed_list:\t0-7\nMems_allowed_list:\t0\n");
        files.iter().for_each(|(name, text)| put(&mount.join(name), text));
        available_to(dir.path())
    }

    #[test]
    fn containers_get_their_quota_rounded_up_and_never_less_than_one() {
        // A namespace of its own, as Docker and Kubernetes give by default: the group is the root.
        let two = "31 23 0:28 / MOUNT rw,nosuid - cgroup2 cgroup rw,nsdelegate";
        for (quota, expected) in [
            ("max 100000\n", 8),
            ("150000 100000\n", 2),
            ("100000 100000\n", 1),
            ("50000 100000\n", 1),
            ("1000 100000\n", 1),
            ("9600000 100000\n", 8),
            ("", 8),
        ] {
            assert_eq!(container("0::/\n", two, &[("cpu.max", quota)]), expected, "{quota}");
        }
        // The host's namespace and tree; a limit of the pod holds for its containers.
        let pod = [("kubepods.slice/pod.slice/cpu.max", "300000 100000\n"), ("cpu.max", "")];
        assert_eq!(container("0::/kubepods.slice/pod.slice/cri.scope\n", two, &pod), 3);

        // v1 shows the host's path, and mounts the part below it.
        let one = "\
            40 39 0:35 /kubepods/burstable/pod1/c1 MOUNT/cpuset ro - cgroup cgroup rw,cpuset\n\
            41 39 0:36 /kubepods/burstable/pod1/c1 MOUNT/cpu ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n";
        let cgroup = "5:cpuset:/kubepods/burstable/pod1/c1\n4:cpu,cpuacct:/kubepods/burstable/pod1/c1\n";
        for (quota, expected) in [("250000\n", 3), ("50000\n", 1), ("-1\n", 8)] {
            let files = [("cpu/cpu.cfs_quota_us", quota), ("cpu/cpu.cfs_period_us", "100000\n")];
            assert_eq!(container(cgroup, one, &files), expected, "{quota}");
        }
        // Both trees, where v2 has no cpu controller.
        let hybrid = format!("{one}{}", two.replace("MOUNT", "MOUNT/unified"));
        let files = [("cpu/cpu.cfs_quota_us", "200000\n"), ("cpu/cpu.cfs_period_us", "100000\n")];
        assert_eq!(container(&format!("{cgroup}0::/kubepods/burstable/pod1/c1\n"), &hybrid, &files), 2);
    }
}
