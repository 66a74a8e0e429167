//! Reading from sockets without a buffer for each: most of them wait.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// What can be read; nothing at the end. Where so much is `expected`, more is read at once.
pub fn poll_read<S: AsyncRead + Unpin + ?Sized>(
    io: &mut S,
    expected: u64,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    let expected = usize::try_from(expected).unwrap_or(usize::MAX).min(LARGEST_READ);
    if expected > SCRATCH {
        let mut read = BytesMut::with_capacity(expected);
        ready!(pin!(io.read_buf(&mut read)).poll(cx))?;
        return Poll::Ready(Ok(read.freeze()));
    }
    SCRATCH_SPACE.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
    })
}

/// `read` and then `more`, without copying all of it each time.
pub fn append(read: &mut Bytes, more: Bytes) {
    if read.is_empty() {
        *read = more;
        return;
    }
    let mut both = match std::mem::take(read).try_into_mut() {
        Ok(read) => read,
        Err(shared) => BytesMut::from(&*shared),
    };
    both.extend_from_slice(&more);
    *read = both.freeze();
}

thread_local! {
    /// Where a thread reads to first: a waiting connection needs no buffer, and this one stays in the cache.
    static SCRATCH_SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

const SCRATCH: usize = 16 << 10;
const LARGEST_READ: usize = 128 << 10;
