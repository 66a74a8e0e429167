//! Files that the configuration names: regular ones, or links to such, of a bounded length.
//!
//! Never waits: a pipe would wait for its writer, and a check or a reload with it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{Error, ErrorKind, Read as _, Result},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The most that a file of secrets, keys or certificates may hold.
pub const MOST: u64 = 4 << 20;

/// Opens a regular file.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    // Asked before it is opened, since to open a device may do something, and after, since another may be there by then.
    regular(&fs::metadata(path).map_err(|error| told(path, error))?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata))
}

/// Reads a regular file of at most [`MOST`] bytes. Wiped from memory when dropped.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let (file, metadata) = open(path)?;
    bytes(file, &metadata)
}

/// Reads what [`open`] gave, at most [`MOST`] bytes. Wiped from memory when dropped.
pub fn bytes(file: File, metadata: &Metadata) -> Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a vector that grows leaves copies behind.
    let room = metadata.len().min(MOST) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(Error::new(ErrorKind::FileTooLarge, "it is longer than 4MiB"));
    }
    Ok(bytes)
}

/// What was read, as text.
pub fn text(bytes: &[u8]) -> Result<&str> {
    str::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

fn regular(metadata: &Metadata) -> Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file")) }
}

/// A link to nothing is something: no file can be made in its place.
fn told(path: &Path, error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound && path.is_symlink() {
        return Error::new(ErrorKind::InvalidInput, "it is a link to nothing");
    }
    error
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_file_is_read_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, second) =
            (folder.path().join("file"), folder.path().join("link"), folder.path().join("second"));
        fs::write(&file, "words").unwrap();
        symlink("file", &link).unwrap();
        symlink("link", &second).unwrap();
        for path in [file, link, second] {
            assert_eq!(read(&path).unwrap().as_slice(), b"words");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink("pipe", at("to a pipe")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for path in [at("pipe"), at("to a pipe"), at("socket"), at(""), "/dev/null".into(), "/dev/zero".into()] {
            assert_eq!(read(&path).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn a_link_to_nothing_is_not_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (link, missing) = (folder.path().join("link"), folder.path().join("missing"));
        symlink(&missing, &link).unwrap();
        let error = read(&link).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, "it is a link to nothing"));
        assert_eq!(read(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_may_hold_so_much_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(MOST).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MOST);
        file.set_len(MOST + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "it is longer than 4MiB");
    }
}
