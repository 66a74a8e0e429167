//! Logs for operators, on standard error. Events of Tollgate itself from the configured level on; those of
//! the libraries below only from `warn`, since on lower levels some show header fields.

use std::io::{self, Write};

use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    prelude::*,
    reload,
    util::TryInitError,
};

use super::{LogFormat, LogLevel, LogSettings};

/// The running logs, whose level a reload may change.
#[derive(Debug, Clone)]
pub struct Logs {
    filter: reload::Handle<Targets, Registry>,
}

impl Logs {
    /// Starts logging, once in a process.
    pub fn start(settings: &LogSettings) -> Result<Self, TryInitError> {
        let (subscriber, logs) = build(settings, || OneLine(io::stderr()));
        subscriber.try_init()?;
        Ok(logs)
    }

    /// Takes over a new level. The form of lines stays until the next start.
    pub fn apply(&self, settings: &LogSettings) {
        if let Err(error) = self.filter.reload(filter(settings.level)) {
            tracing::warn!(%error, "the log level stays as it was");
        }
    }
}

fn build<W>(settings: &LogSettings, writer: W) -> (impl tracing::Subscriber + Send + Sync, Logs)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    // Without colours: they are control characters, and those do not pass `OneLine`.
    let lines = fmt::layer().with_ansi(false).with_writer(writer);
    let lines = match settings.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    (tracing_subscriber::registry().with(filter).with(lines), Logs { filter: handle })
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Keeps an event on its line: control characters inside it are written as escapes. The formatter
/// hands over one event at a time, ended by a line feed.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
        }
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &LogSettings, events: impl FnOnce(&Logs)) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, logs) = build(settings, move || OneLine(writer.clone()));
        with_default(subscriber, || events(&logs));
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    #[test]
    fn an_event_is_one_line_in_both_forms() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let settings = LogSettings { format, ..LogSettings::default() };
            let text = logged(&settings, |_| tracing::warn!(name = %"a\r\nb\u{1b}[2K", "hello\nINFO forged"));
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.trim_end().chars().all(|c| !c.is_control()) && text.contains("hello"), "{text:?}");
        }
    }

    #[test]
    fn json_events_are_flat_objects() {
        let text = logged(&LogSettings::default(), |_| tracing::info!(api.name = "Orders", "loaded"));
        let said: serde_json::Value = serde_json::from_str(&text).expect("an event is JSON");
        assert_eq!(
            (&said["message"], &said["api.name"], &said["level"]),
            (&"loaded".into(), &"Orders".into(), &"INFO".into())
        );
    }

    #[test]
    fn the_level_holds_and_can_change() {
        let text = logged(&LogSettings::default(), |logs| {
            tracing::debug!("one");
            logs.apply(&LogSettings { level: LogLevel::Debug, ..LogSettings::default() });
            tracing::debug!("two");
            tracing::debug!(target: "hyper::proto", "three");
            tracing::warn!(target: "hyper::proto", "four");
            logs.apply(&LogSettings { level: LogLevel::Error, ..LogSettings::default() });
            tracing::warn!(target: "hyper::proto", "five");
        });
        let seen = |word: &str| text.contains(word);
        assert_eq!(["one", "two", "three", "four", "five"].map(seen), [false, true, false, true, false], "{text}");
    }
}
