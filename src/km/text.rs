//! Texts of the command line that may begin with a dash. An option's value is taken as it comes, and so an option whose
//! own value was left out would take the next option for it: that is refused here.

use clap::{Args as _, Command};

use super::Arguments;

/// The value of an option, unless it is itself an option of `km`.
pub(super) fn text<T: From<String>>(value: &str) -> Result<T, String> {
    match is_option(value) {
        true => Err("is an option: the value before it is missing".into()),
        false => Ok(value.to_owned().into()),
    }
}

fn is_option(value: &str) -> bool {
    let Some(name) = value.strip_prefix('-') else { return false };
    let mut km = Arguments::augment_args(Command::new("km"));
    // It adds --help.
    km.build();
    has(&km, name)
}

/// Whether the command, or one below it, has the option; `name` is without its first dash.
fn has(command: &Command, name: &str) -> bool {
    let named = |option: &clap::Arg| match name.strip_prefix('-') {
        Some(long) => option.get_long().is_some_and(|own| long.split('=').next() == Some(own)),
        None => option.get_short().is_some_and(|own| name.chars().eq([own])),
    };
    command.get_arguments().any(named) || command.get_subcommands().any(|below| has(below, name))
}
