//! Files: the configuration and the private key. What was read is wiped.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use peer_core::key::PrivateKey;
use zeroize::Zeroizing;

use crate::error::Error;

/// Most bytes of a configuration.
const MAX_CONFIG: usize = 16 << 20;
/// Most bytes of a key file: a key and what an editor may add.
const MAX_KEY: usize = 4096;

/// A text that is wiped.
pub(crate) struct Text(Zeroizing<Vec<u8>>);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // `config` has checked it.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The configuration at `path`.
pub(crate) fn config(path: &Path) -> Result<Text, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = File::open(path).and_then(|file| read(file, MAX_CONFIG)).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| Error::TooLarge { path: path.to_owned(), limit: MAX_CONFIG })?;
    if let Err(error) = str::from_utf8(&bytes) {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        return Err(Error::NotText { path: path.to_owned(), line });
    }
    Ok(Text(bytes))
}

/// The private key in the file at `path`, or why not and what to do.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKey, (String, String)> {
    let failed = |error: &io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => "write a key to it: umask 077; peer-daemon genkey > FILE",
            io::ErrorKind::PermissionDenied => "make its owner the user that runs peer-daemon",
            _ => "check the path",
        };
        (format!("cannot be read: {error}"), fix.to_owned())
    };
    // Before it is opened: to open a pipe would wait for its other end.
    if !path.metadata().map_err(|error| failed(&error))?.is_file() {
        return Err(("is no regular file".to_owned(), "name a file that holds the key alone".to_owned()));
    }
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mode = file.metadata().map_err(|error| failed(&error))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err((format!("others may access it (mode {mode:04o})"), format!("chmod 600 {}", path.display())));
    }
    let bytes = read(file, MAX_KEY).map_err(|error| failed(&error))?;
    let text = bytes.as_ref().and_then(|bytes| str::from_utf8(bytes).ok()).map(str::trim);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let size = bytes.map_or(format!("more than {MAX_KEY}"), |bytes| bytes.len().to_string());
        let fix = "it must hold one key as peer-daemon genkey prints it and nothing else";
        (format!("the {size} bytes in it are no key"), fix.to_owned())
    })
}

/// All of `file`, or `None` when that is more than `limit` bytes. Buffers that became too small are wiped, too.
fn read(mut file: File, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut buf = Zeroizing::new(vec![0; expected.min(limit) + 1]);
    let mut len = 0;
    loop {
        if len > limit {
            return Ok(None);
        }
        if len == buf.len() {
            let mut larger = Zeroizing::new(vec![0; (2 * len).min(limit + 1)]);
            larger[..len].copy_from_slice(&buf);
            buf = larger;
        }
        match file.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buf.truncate(len);
    Ok(Some(buf))
}
