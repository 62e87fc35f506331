//! What `setup-workspace` is told: the daemon writes it, the pod reads it.
//!
//! The specification travels in Secrets. A Secret holds at most 1 MiB, so it
//! is compressed and, where that is not enough, split; the pod sees the parts
//! as files of one directory and joins them in the order of their names.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of one part. A Secret may hold 1 MiB and etcd takes objects of
/// 1.5 MiB, which base64 fills by a third: 900 KiB stays under both.
pub const PART_BYTES_MAX: usize = 900 * 1024;

/// Everything that the pod needs to make the workspace.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkspaceSpec {
    /// Base URL of the Sourcegraph instance, its path kept, without a last slash.
    pub frontend_url: String,
    /// Value of the Authorization header of every request for this job.
    pub authorization: String,
    /// Name of the executor that holds the job.
    pub executor_name: String,
    /// Number of the job.
    pub job_id: i64,
    /// What to clone, if anything.
    pub repository: Option<RepositorySpec>,
    /// Files to write, workspace files and step scripts alike.
    pub files: Vec<FileSpec>,
}

/// What to clone, and how; see `job::Repository` for the meaning of each field.
#[derive(Debug, Serialize, Deserialize)]
pub struct RepositorySpec {
    /// Name on the Sourcegraph instance.
    pub name: String,
    /// Directory of the clone, relative to the workspace.
    pub directory: String,
    /// Commit to check out.
    pub commit: String,
    /// Whether tags are fetched.
    pub fetch_tags: bool,
    /// Whether history is left out.
    pub shallow: bool,
    /// Sparse checkout patterns; empty means everything.
    pub sparse_checkout: Vec<String>,
    /// Path of a certificate file that git trusts, inside the container.
    pub ca_certificate: Option<String>,
}

/// One file to write; its parent directories are made.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileSpec {
    /// Path relative to the workspace.
    pub path: String,
    /// Where the contents come from.
    pub source: FileSourceSpec,
    /// Modification time (RFC 3339), or none to leave it as it is.
    pub modified_at: Option<String>,
}

/// Where the contents of a file come from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileSourceSpec {
    /// The contents, as base64 in the JSON.
    Inline(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] Vec<u8>),
    /// `GET <frontend>/.executors/files/<bucket>/<key>`.
    Store {
        /// First part of the address.
        bucket: String,
        /// Second part; may contain slashes.
        key: String,
    },
}

impl WorkspaceSpec {
    /// Compresses and splits: every part has at most `PART_BYTES_MAX` bytes.
    pub fn pack(&self) -> Vec<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut gzip, self).expect("a specification is plain data");
        gzip.flush().expect("a Vec takes all bytes");
        let packed = gzip.finish().expect("a Vec takes all bytes");
        packed
            .chunks(PART_BYTES_MAX)
            .map(|part| part.to_vec())
            .collect()
    }

    /// Name of the file that holds a part; names sort in the order of the parts.
    pub fn part_name(index: usize) -> String {
        format!("workspace.{index:04}")
    }

    /// Joins the parts in a directory and reads the specification.
    pub fn unpack(dir: &Path) -> io::Result<WorkspaceSpec> {
        let mut names: Vec<_> = fs::read_dir(dir)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with("workspace."))
            })
            .collect();
        names.sort();
        let mut packed = Vec::new();
        for name in names {
            fs::File::open(name)?.read_to_end(&mut packed)?;
        }
        Ok(serde_json::from_reader(GzDecoder::new(packed.as_slice()))?)
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
