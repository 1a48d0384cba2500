//! A [`Status`] in OpenMetrics text. Names follow the conventions of Prometheus: `firn_`, what it is,
//! its base unit, `_total` for what only grows. One line here makes a number a metric.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::report::status::{Counters, Status};

/// Before every name.
const PREFIX: &str = "firn";

/// The metrics of a volume.
pub(super) fn text(status: Status) -> Result<String, fmt::Error> {
    let labels = [("volume".into(), status.uuid.clone().into())];
    let mut registry = Registry::with_prefix_and_labels(PREFIX, labels.into_iter());
    registry.register_collector(Box::new(Numbers(status)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Numbers(Status);

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder };
        let status = &self.0;
        about(status, &mut out)?;
        tiers(status, &mut out)?;
        parts(status, &mut out)?;
        moved(status, &mut out)?;
        status.counters.as_ref().map_or(Ok(()), |counters| counted(counters, &mut out))
    }
}

/// Writes one metric a call.
struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Out<'_> {
    /// What goes up and down.
    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
    }

    /// Bytes that go up and down.
    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge(name, help, Some(&Unit::Bytes), value as f64)
    }

    /// How many there are.
    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge(name, help, None, value as f64)
    }

    /// Whether something is so.
    fn flag(&mut self, name: &str, help: &str, value: bool) -> fmt::Result {
        self.count(name, help, u64::from(value))
    }

    /// What only grows while a volume is mounted.
    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.encoder.encode_descriptor(name, help, unit, counter.metric_type())?)
    }

    /// Counters of one name, told apart by a label.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'a str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            ConstCounter::new(count).encode(metric.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// Gauges of one name, told apart by a label.
    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, u64); N],
    ) -> fmt::Result {
        self.labelled(name, help, None, label, values.map(|(value, of)| (value, Some(of))))
    }

    /// A gauge of bytes or of things, one value for each tier that has one.
    fn of_tiers(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: [(&str, Option<u64>); 2],
    ) -> fmt::Result {
        self.labelled(name, help, unit, "tier", values)
    }

    fn labelled<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: [(&str, Option<u64>); N],
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (of, value) in values {
            if let Some(value) = value {
                metric.encode_family(&[(label, of)])?.encode_gauge(&(value as f64))?;
            }
        }
        Ok(())
    }
}

fn about(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    if let Some(mount) = &status.mount {
        let up = mount.uptime_s as f64;
        out.gauge("uptime", "Time since the volume was mounted", Some(&Unit::Seconds), up)?;
        let read_only = mount.read_only;
        out.flag("read_only", "1 when nothing may be written", read_only)?;
    }
    out.count("warnings", "Warnings that firn status shows", status.warnings.len() as u64)?;
    out.count("jobs", "Things that go on in the background", status.jobs.len() as u64)?;
    match status.hit_ratio {
        Some(ratio) => {
            let help = "Share of block reads since the mount that needed nothing of the cold tier";
            out.gauge("hit", help, Some(&Unit::Other("ratio".to_owned())), ratio)
        }
        None => Ok(()),
    }
}

fn tiers(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    let hot = &status.hot;
    let cold = status.cold.as_ref();
    out.of_tiers(
        "tier_used",
        "Bytes used, in hot with databases and indexes",
        Some(&Unit::Bytes),
        [("hot", Some(hot.used_bytes)), ("cold", cold.map(|cold| cold.used_bytes))],
    )?;
    out.of_tiers(
        "tier_capacity",
        "Bytes that may be used; absent where there is no bound",
        Some(&Unit::Bytes),
        [("hot", Some(hot.capacity_bytes)), ("cold", cold.and_then(|cold| cold.capacity_bytes))],
    )?;
    out.of_tiers(
        "tier_segments",
        "Segments that lie there",
        None,
        [("hot", Some(hot.segments)), ("cold", cold.map(|cold| cold.segments))],
    )?;
    match cold {
        Some(cold) => out.count(
            "waiting_uploads",
            "Segments that still have to be copied to the cold tier",
            cold.waiting_segments,
        ),
        None => Ok(()),
    }
}

fn parts(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    if let Some(data) = &status.data {
        out.bytes("stored", "Bytes of all segments, each once", data.stored_bytes)?;
        out.bytes("dead", "Bytes removed and not collected yet", data.dead_bytes)?;
        out.bytes("buffered", "Bytes that write buffers hold", data.buffered_bytes)?;
        out.count("dirty_files", "Files with data that is not durable yet", data.dirty_files)?;
    }
    if let Some(memory) = &status.memory {
        out.bytes("memory_used", "Bytes taken of the memory budget", memory.used_bytes)?;
        out.bytes("memory_budget", "The memory budget", memory.budget_bytes)?;
        out.bytes("memory_resident", "Resident memory of the daemon", memory.resident_bytes)?;
    }
    if let Some(backup) = &status.backup {
        if let Some(age) = backup.age_s {
            let help = "Age of what the last verified backup of the namespace holds";
            out.gauge("backup_age", help, Some(&Unit::Seconds), age as f64)?;
        }
        out.flag("backup_current", "1 when nothing has changed since", backup.current)?;
        out.flag("backup_failed", "1 when the last try failed", backup.failure.is_some())?;
    }
    out.count("interrupted_receives", "Receives that wait to go on", status.receives.len() as u64)
}

/// What decides where data lie, and what holds back that they get there.
fn moved(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    if let Some(placement) = &status.placement {
        let jobs = [
            ("waiting", placement.waiting_jobs),
            ("running", placement.running_jobs),
            ("parked", placement.parked_jobs),
        ];
        out.gauges("moves", "Jobs that move data between the tiers", "state", jobs)?;
        let failed = placement.policy_failure.is_some();
        out.flag("policy_failed", "1 when policy.toml as it is now does not hold", failed)?;
        let recalls =
            [("under_way", placement.recalls_in_flight), ("waiting", placement.recalls_waiting)];
        out.gauges("recalls", "Reads of cold data", "state", recalls)?;
        out.count("scans", "Programs that pass over many files", placement.scans.len() as u64)?;
    }
    if let Some(model) = &status.model {
        let help = "State of the classifier: 1 for the one it is in";
        let states = ["on", "off", "learning", "guarded"];
        let states = states.map(|state| (state, u64::from(model.state == state)));
        out.gauges("model_state", help, "state", states)?;
        let help = "Times that the classifier was switched off for doing worse, or on again";
        out.counter("model_switches", help, None, model.switches)?;
    }
    if let Some(throttle) = status.cold.as_ref().and_then(|cold| cold.throttle.as_ref()) {
        out.flag("cold_down", "1 when the cold tier does not answer", throttle.is_down)?;
        let window = throttle.window_bytes;
        out.bytes("cold_window", "Bytes that may be under way to and from the cold tier", window)?;
        let under_way = throttle.in_flight_bytes;
        out.bytes("cold_under_way", "Bytes under way to and from the cold tier", under_way)?;
        let help = "Latency of the cold tier as a multiple of that without other work";
        out.gauge("cold_stretch", help, Some(&Unit::Other("ratio".to_owned())), throttle.stretch)?;
    }
    match &status.thawed {
        Some(thawed) => {
            out.count("thawed_files", "Files that lie in hot as plain copies too", thawed.files)?;
            out.bytes("thawed", "Bytes that these copies take", thawed.bytes)?;
            let help = "Plain copies that were damaged when they were put back";
            out.counter("thawed_damaged", help, None, thawed.damaged)?;
            let help = "Opens that the kernel served from plain copies";
            out.counter("thawed_opens", help, None, thawed.opens.unwrap_or(0))
        }
        None => Ok(()),
    }
}

fn counted(counters: &Counters, out: &mut Out<'_>) -> fmt::Result {
    let bytes = [
        ("written", "Plaintext that became blocks", counters.written_bytes),
        ("written_stored", "What that was stored in", counters.stored_bytes),
        ("uploaded", "Bytes copied to the cold tier", counters.uploaded_bytes),
        ("recalled", "Bytes brought back to the hot tier", counters.recalled_bytes),
        ("dropped", "Bytes dropped from the hot tier", counters.dropped_bytes),
        ("hot_read", "Bytes read from the hot tier", counters.hot_read_bytes),
        ("cold_read", "Bytes read from the cold tier", counters.cold_read_bytes),
        ("cache_read", "Bytes read from memory", counters.cache_read_bytes),
    ];
    for (name, help, value) in bytes {
        out.counter(name, help, Some(&Unit::Bytes), value)?;
    }
    let counts = [
        ("hot_reads", "Block reads answered from the hot tier", counters.hot_reads),
        ("cold_reads", "Block reads answered from the cold tier", counters.cold_reads),
        ("cache_hits", "Block reads answered from memory", counters.cache_hits),
        ("cold_requests", "Ranged reads asked of the cold tier", counters.cold_requests),
        ("damaged_reads", "Stored copies that failed verification", counters.damaged_reads),
        ("rescued_reads", "Reads that parity answered", counters.rescued_reads),
        ("repaired_segments", "Damaged segments made whole", counters.repaired_segments),
        ("upload_failures", "Copies to the cold tier that failed", counters.upload_failures),
    ];
    for (name, help, value) in counts {
        out.counter(name, help, None, value)?;
    }
    out.counters(
        "kernel_requests",
        "FUSE requests of the kernel",
        "kind",
        counters.kernel_requests.iter().map(|(kind, count)| (kind.as_str(), *count)),
    )?;
    out.count("waiting_writers", "Writers that wait for space", counters.waiting_writers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::report::model::ModelReport;
    use crate::report::status::thawed::ThawedStatus;
    use crate::report::status::{ColdStatus, HotStatus, MountStatus, PlacementStatus};

    #[test]
    fn names_units_and_values() {
        let status = Status {
            uuid: "u-1".to_owned(),
            mount: Some(MountStatus { uptime_s: 61, ..MountStatus::default() }),
            hot: HotStatus { used_bytes: 5 << 30, capacity_bytes: 8 << 30, ..HotStatus::default() },
            cold: Some(ColdStatus { used_bytes: 7, waiting_segments: 3, ..ColdStatus::default() }),
            hit_ratio: Some(0.5),
            placement: Some(PlacementStatus {
                parked_jobs: 2,
                recalls_waiting: 6,
                ..PlacementStatus::default()
            }),
            model: Some(ModelReport {
                state: "guarded".to_owned(),
                switches: 1,
                ..ModelReport::default()
            }),
            thawed: Some(ThawedStatus { files: 8, opens: Some(11), ..ThawedStatus::default() }),
            counters: Some(Counters {
                uploaded_bytes: 9,
                cold_reads: 4,
                kernel_requests: [("lookup".to_owned(), 7)].into(),
                ..Counters::default()
            }),
            ..Status::default()
        };
        let text = text(status).unwrap();
        let lines = [
            "# TYPE firn_tier_used_bytes gauge",
            "# UNIT firn_tier_used_bytes bytes",
            "firn_tier_used_bytes{volume=\"u-1\",tier=\"hot\"} 5368709120.0",
            "firn_tier_used_bytes{volume=\"u-1\",tier=\"cold\"} 7.0",
            "firn_tier_capacity_bytes{volume=\"u-1\",tier=\"hot\"} 8589934592.0",
            "firn_waiting_uploads{volume=\"u-1\"} 3.0",
            "firn_uptime_seconds{volume=\"u-1\"} 61.0",
            "firn_hit_ratio{volume=\"u-1\"} 0.5",
            "# TYPE firn_uploaded_bytes counter",
            "firn_uploaded_bytes_total{volume=\"u-1\"} 9",
            "firn_cold_reads_total{volume=\"u-1\"} 4",
            "firn_kernel_requests_total{volume=\"u-1\",kind=\"lookup\"} 7",
            "firn_read_only{volume=\"u-1\"} 0.0",
            "firn_moves{volume=\"u-1\",state=\"parked\"} 2.0",
            "firn_moves{volume=\"u-1\",state=\"running\"} 0.0",
            "firn_recalls{volume=\"u-1\",state=\"waiting\"} 6.0",
            "firn_policy_failed{volume=\"u-1\"} 0.0",
            "firn_model_state{volume=\"u-1\",state=\"guarded\"} 1.0",
            "firn_model_state{volume=\"u-1\",state=\"on\"} 0.0",
            "firn_model_switches_total{volume=\"u-1\"} 1",
            "firn_thawed_files{volume=\"u-1\"} 8.0",
            "firn_thawed_opens_total{volume=\"u-1\"} 11",
        ];
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        // A bound that is not there is no number.
        assert!(!text.contains("firn_tier_capacity_bytes{volume=\"u-1\",tier=\"cold\"}"));
    }
}
