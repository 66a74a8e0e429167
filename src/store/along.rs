//! A row that goes along with whatever else is changed: both are kept, or none.

use std::future::Future;

use parking_lot::Mutex;

use super::record::{Changes, Error, Record};

/// What goes along with the next change of the record by this task.
struct Along {
    with: Record,
    change: Mutex<Option<Change>>,
}

pub(super) type Change = Box<dyn FnMut(&Changes<'_>) -> Result<(), Error> + Send>;

tokio::task_local! {
    static ALONG: Along;
}

impl Record {
    /// Does `work`. The first change that it makes of this record, in its own task, is committed with `change`. Tells
    /// whether there was one.
    pub async fn along<W: Future>(
        &self,
        change: impl FnMut(&Changes<'_>) -> Result<(), Error> + Send + 'static,
        work: W,
    ) -> (W::Output, bool) {
        let along = Along { with: self.clone(), change: Mutex::new(Some(Box::new(change))) };
        let went = async { (work.await, ALONG.with(|along| along.change.lock().is_none())) };
        ALONG.scope(along, went).await
    }

    /// What goes along with the change that is about to be made.
    pub(super) fn companion(&self) -> Option<Change> {
        let taken = |along: &Along| along.with.is(self).then(|| along.change.lock().take()).flatten();
        ALONG.try_with(taken).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::Table, *};

    const ROWS: Table<u32> = Table::new("rows");

    #[tokio::test]
    async fn it_goes_with_the_first_change_of_this_record_and_with_no_other() {
        let (record, other) = (Record::in_memory().unwrap(), Record::in_memory().unwrap());
        let companion = |changes: &Changes<'_>| changes.put(&ROWS, b"along", &1);
        assert!(!record.along(companion, async {}).await.1);
        let elsewhere = other.change(|changes| changes.put(&ROWS, b"a", &1));
        assert!(!record.along(companion, elsewhere).await.1);
        assert_eq!((record.get(&ROWS, b"along").unwrap(), other.get(&ROWS, b"along").unwrap()), (None, None));

        let work = async {
            record.change(|changes| changes.put(&ROWS, b"a", &2)).await.unwrap();
            let seen = record.get(&ROWS, b"along").unwrap();
            record.change(|changes| changes.remove(&ROWS, b"along")).await.unwrap();
            record.change(|changes| changes.put(&ROWS, b"b", &3)).await.unwrap();
            seen
        };
        assert_eq!(record.along(companion, work).await, (Some(1), true));
        assert_eq!(record.get(&ROWS, b"along").unwrap(), None, "once");
    }

    #[tokio::test]
    async fn both_are_kept_or_none() {
        let record = Record::in_memory().unwrap();
        let refuse = |_: &Changes<'_>| Err(Error::Busy);
        let (made, _) = record.along(refuse, record.change(|changes| changes.put(&ROWS, b"a", &1))).await;
        assert!(matches!(made, Err(Error::Busy)), "{made:?}");
        assert_eq!(record.get(&ROWS, b"a").unwrap(), None);
        let companion = |changes: &Changes<'_>| changes.put(&ROWS, b"along", &1);
        let (made, _) = record.along(companion, record.change(|_| Err::<(), _>(Error::Busy))).await;
        assert!(matches!(made, Err(Error::Busy)), "{made:?}");
        assert_eq!(record.get(&ROWS, b"along").unwrap(), None);
    }
}
