//! Small JSON files that appear whole.

use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The content of a file; the default where there is none.
pub(super) async fn read<T: DeserializeOwned + Default>(path: &Path) -> io::Result<T> {
    match tokio::fs::read(path).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error),
    }
}

/// Replaces a file.
pub(super) async fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
    let path = path.to_owned();
    let replace = move || {
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&bytes)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    tokio::task::spawn_blocking(replace).await.map_err(io::Error::other)?
}
