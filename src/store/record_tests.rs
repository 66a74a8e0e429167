//! The record: durable, private, one change after the other.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use redb::StorageBackend;

use super::{super::writer::MOST_IN_A_COMMIT, *};

const NAMES: Table<String> = Table::new("names");
const NUMBERS: Table<u64> = Table::new("numbers");

fn put(record: &Record, key: &'static str, name: &'static str) -> Result<(), Error> {
    record.change_blocking(move |changes| changes.put(&NAMES, key.as_bytes(), &name.to_owned()))
}

#[test]
fn rows_outlive_the_process_and_the_file_is_private() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    {
        let record = Record::open(&path).expect("a new file");
        assert!(record.get(&NAMES, b"x").expect("readable").is_none(), "a table that is not there is empty");
        put(&record, "x", "ada").expect("writable");
        assert!(matches!(Record::open(&path), Err(Error::InUse { .. })));
    }
    assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
    let record = Record::open(&path).expect("it was closed");
    assert_eq!(record.get(&NAMES, b"x").expect("readable").as_deref(), Some("ada"));
    assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_opened_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("none/a.redb");
    let foreign = folder.path().join("foreign");
    std::fs::write(&foreign, "something else, and quite a lot of it".repeat(1000)).expect("writable");
    let newer = folder.path().join("newer");
    let record = Record::open(&newer).expect("a new file");
    record.change_blocking(|changes| changes.put(&META, META_SCHEMA, &(SCHEMA + 1))).expect("writable");
    drop(record);
    for (path, kind, advice) in [
        (&missing, "cannot open", "folder must exist"),
        (&foreign, "no record of Tollgate", "move it away"),
        (&newer, "newer Tollgate (schema 2, this one knows 1)", "restore a copy"),
    ] {
        let error = Record::open(path).expect_err(kind).to_string();
        assert!(error.contains(kind) && error.contains(advice), "{error}");
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&foreign).expect("still there").len(), 37_000, "it was left alone");
}

#[test]
fn keys_with_a_prefix_come_in_order_and_no_others() {
    let record = Record::in_memory().expect("memory");
    for key in ["b/2", "b/1", "a/9", "b", "c/1", "b/3"] {
        put(&record, key, key).expect("writable");
    }
    let view = record.view().expect("readable");
    let keys = |prefix: &str, most| -> Vec<String> {
        view.rows(&NAMES, prefix.as_bytes(), most).expect("readable").into_iter().map(|(_, name)| name).collect()
    };
    assert_eq!(keys("b/", 9), ["b/1", "b/2", "b/3"]);
    assert_eq!(keys("b/", 2), ["b/1", "b/2"]);
    assert_eq!(keys("d", 9), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_run_one_after_the_other_and_share_commits() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = Record::open(&folder.path().join("a.redb")).expect("a new file");
    let add = || {
        let record = record.clone();
        tokio::spawn(async move {
            let add_one = |changes: &Changes<'_>| {
                let before = changes.get(&NUMBERS, b"n")?.unwrap_or_default();
                changes.put(&NUMBERS, b"n", &(before + 1))?;
                Ok(before + 1)
            };
            record.change(add_one).await
        })
    };
    let adders: Vec<_> = (0..500).map(|_| add()).collect();
    let mut seen = Vec::new();
    for adder in adders {
        seen.push(adder.await.expect("no panic").expect("written"));
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=500).collect::<Vec<u64>>());
    let Counted { commits, changes, .. } = &record.0.counted;
    assert_eq!(changes.get(), 500);
    assert!((1..=500).contains(&commits.get()));
    assert_eq!(record.get(&NUMBERS, b"n").expect("readable"), Some(500));
}

#[tokio::test]
async fn a_change_that_fails_leaves_nothing_and_harms_no_other() {
    let record = Record::in_memory().expect("memory");
    let (go, gate) = mpsc::sync_channel::<()>(0);
    let first = record.change(move |_| {
        let _ = gate.recv_timeout(Duration::from_secs(5));
        Ok(())
    });
    // They wait behind the first, and so share a commit.
    let bad = record.change(|changes| {
        changes.put(&NAMES, b"bad", &"x".to_owned())?;
        changes.put(&NUMBERS, b"bad", &1)?;
        changes.get(&Table::<String>::new("numbers"), b"bad").map(drop)
    });
    let good = record.change(|changes| changes.put(&NAMES, b"good", &"y".to_owned()));
    let release = async move {
        tokio::task::yield_now().await;
        go.send(())
    };
    let (first, bad, good, _) = tokio::join!(first, bad, good, release);
    assert!(first.is_ok() && good.is_ok());
    assert!(matches!(bad, Err(Error::Row { table: "numbers", .. })));
    assert_eq!(record.get(&NAMES, b"bad").expect("readable"), None);
    assert_eq!((record.0.counted.commits.get(), record.0.counted.changes.get()), (2, 2), "each alone, and not the bad");
    assert!(record.get(&NAMES, b"good").expect("readable").is_some());
}

#[tokio::test]
async fn what_is_only_tried_leaves_nothing_and_sees_what_is_there() {
    let record = Record::in_memory().expect("memory");
    put(&record, "a", "ada").expect("written");
    let (commits, generation) = (record.0.counted.commits.get(), record.generation());
    let tries = record.rehearsal();
    let change = |changes: &Changes<'_>| {
        let before = changes.get(&NAMES, b"a")?;
        changes.put(&NAMES, b"a", &"eve".to_owned())?;
        changes.put(&NUMBERS, b"new", &1)?;
        Ok((before, changes.get(&NAMES, b"a")?))
    };
    let (first, second, kept) = tokio::join!(
        tries.change(change),
        tries.change(change),
        record.change(|changes| changes.put(&NAMES, b"b", &"bob".to_owned()))
    );
    assert_eq!(first.expect("tried"), (Some("ada".into()), Some("eve".into())));
    assert_eq!(second.expect("tried"), (Some("ada".into()), Some("eve".into())), "it sees nothing of the first");
    kept.expect("written");
    assert_eq!((record.0.counted.commits.get(), record.generation()), (commits + 1, generation + 1));
    assert_eq!(record.get(&NAMES, b"a").expect("readable").as_deref(), Some("ada"));
    assert_eq!(record.get(&NAMES, b"b").expect("readable").as_deref(), Some("bob"));
    assert_eq!(record.get(&NUMBERS, b"new").expect("readable"), None);
    let bad = tries.change(|changes| changes.get(&Table::<u32>::new("names"), b"a"));
    assert!(matches!(bad.await, Err(Error::Row { .. })));
}

#[tokio::test]
async fn a_step_of_a_larger_change_is_seen_at_once_and_durable_with_the_next_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    let record = Record::open(&path).expect("a new file");
    put(&record, "before", "x").expect("written");
    // What a process that was killed now would leave.
    let left = |copy: &str| {
        let copy = folder.path().join(copy);
        std::fs::copy(&path, &copy).expect("readable");
        let record = Record::open(&copy).expect("whole");
        let view = record.view().expect("readable");
        view.rows(&NAMES, b"", 9).expect("readable").into_iter().map(|(_, name)| name).collect::<String>()
    };
    let step = |record: Record, name: &'static str| async move {
        let change = move |changes: &Changes<'_>| changes.put(&NAMES, name.as_bytes(), &name.to_owned());
        let note = |changes: &Changes<'_>| changes.put(&NAMES, b"note", &"n".to_owned());
        let (made, went) = record.along(note, record.change(change)).await;
        made.expect("made");
        assert!(went);
    };
    let commits = record.0.counted.commits.get();
    step(record.followed(), "a").await;
    let seen = record.view().expect("readable").rows(&NAMES, b"", 9).expect("readable").len();
    assert_eq!((seen, record.0.counted.commits.get(), &*left("killed")), (3, commits, "x"));
    let end = |changes: &Changes<'_>| changes.remove(&NAMES, b"note").map(drop);
    record.change(end).await.expect("written");
    assert_eq!((record.0.counted.commits.get(), &*left("ended")), (commits + 1, "ax"));
    // Who takes nothing along is the last to be asked; and a step of somebody else's is durable by itself.
    record.followed().change(|changes| changes.put(&NAMES, b"b", &"b".to_owned())).await.expect("written");
    assert_eq!(left("alone"), "abx");
    step(record.clone(), "c").await;
    assert_eq!(left("elsewhere"), "abxcn");
}

#[test]
fn more_than_can_wait_are_refused() {
    let record = Record::in_memory().expect("memory");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let wait = move |_: &Changes<'_>| {
        while !stopped.load(Ordering::Acquire) {
            thread::yield_now();
        }
        Ok(())
    };
    // The writer has taken none of them, or a whole commit.
    let most = MOST_WAITING + MOST_IN_A_COMMIT;
    let outcomes: Vec<_> = (0..=most).map(|_| record.submit(wait.clone(), Keep::Now, drop)).collect();
    stop.store(true, Ordering::Release);
    assert!(matches!(outcomes.last(), Some(Err(Error::Busy))));
}

/// A disk that can be made to fail.
#[derive(Debug)]
struct Disk(InMemoryBackend, Arc<AtomicBool>);

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }
}

#[test]
fn a_disk_that_fails_once_is_told_and_other_failures_are_not() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk(InMemoryBackend::new(), Arc::clone(&full));
    let record = Record::start(builder().create_with_backend(disk).expect("it works"), true).expect("a thread");
    let failed = record.failed();
    put(&record, "x", "ada").expect("writable");
    record.change_blocking(|_| Err::<(), _>(Error::Storage("a fault of one change".into()))).expect_err("it said so");
    assert!(!failed.load(Ordering::Relaxed), "it is as good as before");
    full.store(true, Ordering::SeqCst);
    put(&record, "y", "ada").expect_err("there is no room");
    full.store(false, Ordering::SeqCst);
    put(&record, "z", "ada").expect_err("redb goes on only with the file opened anew");
    assert!(failed.load(Ordering::Relaxed));
}
