//! The bundles of the demo: real ones where the machine has the files.

use std::path::{Path, PathBuf};

use crate::samples::{Places, Sample, SampleError, gvisor, kata};
use crate::seed::catalog::Offer;

/// Builds gvisor's and kata's bundle in `work`; gives also a line about each for people.
pub(super) async fn offers(
    gvisor_dir: Option<PathBuf>,
    work: &Path,
) -> Result<(Vec<Offer>, Vec<String>), SampleError> {
    let places = Places::of_environment(gvisor_dir);
    let (gvisor, kata) = tokio::try_join!(gvisor(&places, work), kata(work))?;
    let (one, two) = tokio::try_join!(
        offer(&gvisor, &[("gvisor", "runsc")], work),
        offer(&kata, &[("kata", "kata")], work),
    )?;
    Ok((vec![one, two], vec![describe(&gvisor), describe(&kata)]))
}

async fn offer(
    sample: &Sample,
    classes: &[(&str, &str)],
    work: &Path,
) -> Result<Offer, SampleError> {
    let built = sample.build(&work.join("blobs")).await?;
    Ok(Offer {
        runtime: sample.runtime.to_string(),
        version: sample.version.clone(),
        platforms: vec![built],
        classes: classes
            .iter()
            .map(|(name, handler)| ((*name).into(), (*handler).into()))
            .collect(),
    })
}

fn describe(sample: &Sample) -> String {
    format!("{} {}: {}", sample.runtime, sample.version, sample.origin)
}
