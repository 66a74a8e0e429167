//! A bench that starts itself again as another process: a load, or what is compared with.

use std::{
    env,
    process::{Child, Command, Stdio},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A process of ours that ends when this is dropped.
pub(crate) struct Running(Child);

/// Starts the bench itself on that core, by these words before its own (such as `nice -n 19`).
pub(crate) fn itself_on(core: &str, by: &[&str], arguments: &[&str]) -> Result<Running, Error> {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).args(by).arg(env::current_exe()?).args(arguments);
    Running::start(command)
}

impl Running {
    /// What it prints is kept for [`Self::told`].
    pub(crate) fn start(mut command: Command) -> Result<Self, Error> {
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool, Error> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Waits for its end: the numbers that it tells.
    pub(crate) fn told<const N: usize>(mut self) -> Result<[u64; N], Error> {
        let told = std::io::read_to_string(self.0.stdout.take().ok_or("it says nothing")?)?;
        if !self.0.wait()?.success() {
            return Err("a load has failed".into());
        }
        let numbers: Option<Vec<u64>> = told.split_whitespace().map(|number| number.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.ok_or_else(|| format!("cannot read what a load tells: {told}").into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A number of the environment, at least 1.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default).max(1)
}
