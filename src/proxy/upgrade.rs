//! WebSockets: once the upstream has agreed to switch, both sides are joined, and nothing is read any more but what the
//! tiers count.
//!
//! Where a tier's bytes or events run out, the first message beyond them is not passed on: both sides are told to close
//! with WSO2's code 4003, each between two frames, and what comes after is discarded.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional, split},
    sync::watch,
    time::timeout,
};

use super::{events::Frames, meter::Meter};
use crate::net::Connection;

/// Joins both sides until either ends, or what is left is cut.
pub(super) fn join(client: OnUpgrade, upstream: OnUpgrade, connection: Arc<Connection>, meter: Option<Arc<Meter>>) {
    tokio::spawn(async move {
        // Without both there is nothing to join; whoever is left sees its connection close.
        let Ok((client, upstream)) = tokio::try_join!(client, upstream) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        tokio::select! {
            ended = async {
                match &meter {
                    None => copy_bidirectional(&mut client, &mut upstream).await.map(|_| ()),
                    Some(meter) => metered(client, upstream, meter).await,
                }
            } => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection broke");
                }
            }
            () = connection.cut() => {}
        }
    });
}

/// Joins both sides, and counts what passes.
async fn metered<C, U>(client: C, upstream: U, meter: &Meter) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_upstream, mut to_upstream) = split(upstream);
    let spent = watch::Sender::new(false);
    let up = Way { meter, spent: &spent, close: &CLOSE_MASKED };
    let down = Way { meter, spent: &spent, close: &CLOSE };
    // Once there is no more room, whoever does not close has some time to.
    let overdue = async {
        let _ = spent.subscribe().wait_for(|spent| *spent).await;
        tokio::time::sleep(CLOSING).await;
    };
    tokio::select! {
        ended = async { tokio::try_join!(
            up.run(&mut from_client, &mut to_upstream),
            down.run(&mut from_upstream, &mut to_client),
        ) } => ended.map(|_| ()),
        () = overdue => Ok(()),
    }
}

/// One direction.
struct Way<'a> {
    meter: &'a Meter,
    spent: &'a watch::Sender<bool>,
    close: &'a [u8],
}

impl Way<'_> {
    /// Until the one side ends or there is no more room.
    async fn run(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (mut frames, mut buffer) = (Frames::default(), vec![0; BUFFER]);
        let mut spent = self.spent.subscribe();
        loop {
            let read = tokio::select! {
                biased;
                _ = spent.wait_for(|spent| *spent), if frames.is_between() => None,
                read = from.read(&mut buffer) => Some(read?),
            };
            match read {
                Some(0) => return to.shutdown().await,
                Some(read) if self.pass(&mut frames, &buffer[..read], to).await? => {}
                _ => return self.close(from, to, &mut buffer).await,
            }
        }
    }

    /// Passes on what there is room for; whether that was all.
    async fn pass(&self, frames: &mut Frames, data: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> io::Result<bool> {
        let (mut passed, mut counted, mut events, mut room) = (0, 0, 0, true);
        while let Some(&first) = data.get(passed) {
            if frames.is_between() {
                // What came before counts before more is let through.
                if Frames::begins_message(first) {
                    self.meter.record(passed - counted, std::mem::take(&mut events));
                    counted = passed;
                    room = self.has_room();
                }
                if !room || *self.spent.borrow() {
                    room = false;
                    break;
                }
            }
            let part = frames.next(&data[passed..]);
            passed += part.len;
            events += u64::from(part.ends_message);
        }
        self.meter.record(passed - counted, events);
        to.write_all(&data[..passed]).await?;
        to.flush().await?;
        Ok(room)
    }

    /// Whether there is room for more. Where there is none the other direction closes too, and it is counted as one that
    /// was refused.
    fn has_room(&self) -> bool {
        let Some((level, tier)) = self.meter.spent() else { return true };
        if !self.spent.send_replace(true) {
            self.meter.metrics.count_throttled(level.label(), tier);
        }
        false
    }

    /// Tells the one side to close; what still comes is read and dropped, so that
    /// what was sent is not lost with it.
    async fn close(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        buffer: &mut [u8],
    ) -> io::Result<()> {
        to.write_all(self.close).await?;
        to.shutdown().await?;
        let _ = timeout(CLOSING, async { while from.read(buffer).await.is_ok_and(|read| read > 0) {} }).await;
        Ok(())
    }
}

/// A close frame (RFC 6455 section 5.5.1) with code 4003 and WSO2's words.
const CLOSE: [u8; 4 + REASON.len()] = close();
/// The same as a client sends it: masked, by a key of zeros, which changes nothing.
const CLOSE_MASKED: [u8; 8 + REASON.len()] = masked();
const REASON: &[u8; 29] = b"Websocket frame throttled out";
const CODE: [u8; 2] = 4003_u16.to_be_bytes();

const fn close() -> [u8; 4 + REASON.len()] {
    let mut frame = [0; 4 + REASON.len()];
    (frame[0], frame[1], frame[2], frame[3]) = (0x88, 2 + REASON.len() as u8, CODE[0], CODE[1]);
    let mut n = 0;
    while n < REASON.len() {
        frame[4 + n] = REASON[n];
        n += 1;
    }
    frame
}

const fn masked() -> [u8; 8 + REASON.len()] {
    let mut frame = [0; 8 + REASON.len()];
    (frame[0], frame[1]) = (CLOSE[0], 0x80 | CLOSE[1]);
    let mut n = 2;
    while n < CLOSE.len() {
        frame[4 + n] = CLOSE[n];
        n += 1;
    }
    frame
}

const BUFFER: usize = 16 << 10;
/// How long a side has to close.
const CLOSING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;
    use crate::{
        net::Clock,
        store::{Limits, Quota, QuotaKind, Tier, Window},
        telemetry::Metrics,
        throttle::{Charge, Level, Limiter},
    };

    /// So many of `kind` may pass.
    fn meter(kind: QuotaKind, limit: u64) -> Meter {
        let quota = Quota { kind, ..Quota::requests(limit, Window::Seconds(86_400)) };
        let limits =
            Limits { name: "T".into(), quota, also: None, burst: None, stop_on_quota_reach: true, advanced: None };
        let tier = Tier { limits: Arc::new(limits), counter: [1; 16] };
        let (limiter, clock) = (Arc::new(Limiter::new()), Arc::new(Clock::new()));
        let charge = Charge { level: Level::Subscription, tier: &tier, user: 0 };
        let bill = limiter.admit(&[charge], clock.now(), false).unwrap().bill.unwrap();
        Meter { limiter, clock, metrics: Arc::new(Metrics::new()), bill, token_usage: None }
    }

    /// Joins two sides; what is beyond them is given.
    fn joined(meter: Meter) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, ours) = duplex(1 << 16);
        let (upstream, theirs) = duplex(1 << 16);
        let task = tokio::spawn(async move { metered(ours, theirs, &meter).await });
        (client, upstream, task)
    }

    async fn expect(stream: &mut DuplexStream, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        timeout(Duration::from_secs(20), stream.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, bytes);
    }

    const HELLO: &[u8] = b"\x81\x05hello";
    const PING: &[u8] = b"\x89\x00";

    #[test]
    fn the_close_frames_are_frames() {
        assert_eq!(CLOSE[..4], [0x88, 31, 15, 163]);
        assert_eq!(CLOSE_MASKED[..8], [0x88, 0x80 | 31, 0, 0, 0, 0, 15, 163]);
        for frame in [&CLOSE[..], &CLOSE_MASKED] {
            assert!(frame.ends_with(REASON));
            let mut frames = Frames::default();
            assert_eq!(frames.next(frame).len, frame.len());
            assert!(frames.is_between());
        }
    }

    #[tokio::test]
    async fn the_message_beyond_the_limit_closes_both_sides_between_frames() {
        let meter = meter(QuotaKind::Events, 2);
        let metrics = Arc::clone(&meter.metrics);
        let (mut client, mut upstream, task) = joined(meter);
        // Half of a frame is under way to the client while its own messages run out.
        upstream.write_all(&HELLO[..4]).await.unwrap();
        expect(&mut client, &HELLO[..4]).await;
        client.write_all(&[HELLO, PING, HELLO, PING, HELLO].concat()).await.unwrap();
        expect(&mut upstream, &[HELLO, PING, HELLO, PING].concat()).await;
        expect(&mut upstream, &CLOSE_MASKED).await;
        upstream.write_all(&[&HELLO[4..], HELLO].concat()).await.unwrap();
        expect(&mut client, &[&HELLO[4..], &CLOSE].concat()).await;
        drop((client, upstream));
        task.await.unwrap().unwrap();
        let text = metrics.render();
        assert!(text.contains("throttled_total{level=\"subscription\",tier=\"T\"} 1\n"), "counted once: {text}");
    }

    #[tokio::test]
    async fn bytes_of_frames_count_and_a_message_that_began_ends() {
        // Room for one byte when the second message begins.
        let (mut client, mut upstream, task) = joined(meter(QuotaKind::Bytes, HELLO.len() as u64 + 1));
        upstream.write_all(&[HELLO, HELLO, HELLO].concat()).await.unwrap();
        expect(&mut client, &[HELLO, HELLO, &CLOSE].concat()).await;
        expect(&mut upstream, &CLOSE_MASKED).await;
        drop((client, upstream));
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_end_is_passed_on() {
        let (mut client, mut upstream, task) = joined(meter(QuotaKind::Events, 9));
        client.write_all(HELLO).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        upstream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, HELLO);
        drop(upstream);
        task.await.unwrap().unwrap();
    }
}
