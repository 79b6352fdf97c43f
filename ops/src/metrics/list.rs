//! The list of everything that is measured. Descriptions, buckets, the check of names used in the sources and the
//! alert rules' check are all derived from it. Names, labels and units are a promise to dashboards: they only grow.

use Kind::{Counter, Gauge, Histogram};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in Prometheus, unit included.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit, for the description.
    pub unit: metrics::Unit,
    /// What it says, for an operator.
    pub help: &'static str,
    /// Its labels. The values of each are few and chosen by us, never by a client.
    pub labels: &'static [&'static str],
}

/// From 100 µs to 30 s.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// From 256 B to 16 MiB.
const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// From 1 to 4,096 of something.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

const N: metrics::Unit = metrics::Unit::Count;
const S: metrics::Unit = metrics::Unit::Seconds;
const B: metrics::Unit = metrics::Unit::Bytes;

/// A line of the list.
const fn m(
    name: &'static str,
    kind: Kind,
    unit: metrics::Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, help, labels }
}

/// Everything that is measured, by subject.
#[rustfmt::skip] // one metric, one or two lines
pub const METRICS: &[Metric] = &[
    // Connections: sockets and their streams.
    m("rookery_connections", Gauge, N, &["kind"], "Open client connections, by listener (c2s, c2s_tls)"),
    m("rookery_connections_total", Counter, N, &["kind"], "Connections accepted since the start, by listener (c2s, c2s_tls, s2s, s2s_tls)"),
    m("rookery_received_bytes_total", Counter, B, &["kind"], "Bytes read after TLS, from clients (c2s) and on streams between servers (s2s)"),
    m("rookery_sent_bytes_total", Counter, B, &["kind"], "Bytes written before TLS, to clients (c2s) and on streams between servers (s2s)"),
    m("rookery_tls_handshakes_total", Counter, N, &["version", "outcome"],
        "TLS handshakes, by version (1.2, 1.3, none) and outcome (ok, failed, timeout)"),
    m("rookery_tls_handshake_seconds", Histogram(SECONDS), S, &[], "Time of TLS handshakes that succeeded"),
    m("rookery_tls_outgoing_handshakes_total", Counter, N, &["version", "outcome"],
        "TLS handshakes with other servers that this one connected to, by version (1.2, 1.3, none) and outcome (ok, failed)"),
    m("rookery_stream_errors_total", Counter, N, &["condition"], "Streams that the server closed with an error, by RFC 6120 condition"),
    m("rookery_certificate_expiry_seconds", Gauge, S, &["domain"], "Expiry time of the certificate of a domain, or of a node (\"cluster node …\"), in seconds since 1970"),
    m("rookery_acme_orders_total", Counter, N, &["outcome"], "Attempts of this node to order a certificate, by outcome (ok, failed)"),
    m("rookery_acme_challenges_total", Counter, N, &["challenge", "outcome"],
        "Challenges for certificates that this node was asked for, by kind and outcome (answered, unknown, failed)"),
    m("rookery_redirects_total", Counter, N, &[], "Clients redirected to the home of their user (cluster.redirect)"),

    // Other servers: where they are.
    m("rookery_dns_questions_total", Counter, N, &["outcome"], "Questions to DNS, by outcome (secure: validated by DNSSEC, found, nothing, failed)"),
    m("rookery_dns_question_seconds", Histogram(SECONDS), S, &[], "Time of questions to DNS"),
    m("rookery_dns_questions", Gauge, N, &[], "Questions to DNS that are under way, or wait because 512 others are"),
    m("rookery_dns_domains", Gauge, N, &[], "Domains whose servers are remembered, of 10,000 at most"),
    m("rookery_posh_fetches_total", Counter, N, &["outcome"],
        "POSH files of other domains that were asked for (federation.posh), by outcome (found, none, malformed, refused, failed)"),
    m("rookery_posh_domains", Gauge, N, &[], "Domains whose POSH files, or the lack of them, are remembered, of 10,000 at most"),

    // Logins.
    m("rookery_logins_total", Counter, N, &["mechanism", "outcome"], "SASL attempts, by mechanism and outcome (ok, failed, aborted)"),
    m("rookery_login_failures_total", Counter, N, &["reason"], "SASL attempts that failed, by RFC 6120 condition"),
    m("rookery_login_seconds", Histogram(SECONDS), S, &[], "Time from the first SASL step to success"),
    m("rookery_registrations_total", Counter, N, &["outcome"], "In-band registrations (XEP-0077), by outcome (ok, refused, failed)"),

    // Sessions, users and their traffic.
    m("rookery_sessions", Gauge, N, &[], "Sessions (bound resources), including those that wait for resumption"),
    m("rookery_sessions_opened_total", Counter, N, &[], "Sessions opened since the start"),
    m("rookery_sessions_closed_total", Counter, N, &["reason"], "Sessions that ended, by reason"),
    m("rookery_sm_resumed_total", Counter, N, &[], "Sessions resumed (XEP-0198)"),
    m("rookery_sm_renumbered_total", Counter, N, &[], "Messages that got a new number in their session before they were sent"),
    m("rookery_sm_failed_total", Counter, N, &[], "Resumptions (XEP-0198) refused because the session does not exist any more"),
    m("rookery_users", Gauge, N, &[], "Users that are loaded on this node: with a session, or with traffic in the last seconds"),
    m("rookery_stanzas_total", Counter, N, &["kind", "direction"], "Stanzas, by kind (message, presence, iq) and direction (in, out)"),
    m("rookery_stanza_errors_total", Counter, N, &["condition"], "Stanza errors that the server returned, by RFC 6120 condition"),
    m("rookery_limits_hit_total", Counter, N, &["limit"], "How often a configured limit was reached, by option name"),
    m("rookery_waiting_bytes", Gauge, B, &[], "Bytes that wait for clients: not yet written, or not acknowledged. Data for several clients is counted for each"),
    m("rookery_sessions_behind_total", Counter, N, &[], "Sessions with so much waiting data that messages stayed in the archive until the client caught up"),
    m("rookery_roster_changes_retold_total", Counter, N, &[], "Roster changes sent to contacts again because the home that made the change died"),
    m("rookery_queue_length", Gauge, N, &["queue"], "Entries in queues, by kind of queue"),

    // Archive and offline.
    m("rookery_archive_appends_total", Counter, N, &[], "Messages committed to archives"),
    m("rookery_archive_queries_total", Counter, N, &["outcome"], "Archive page requests (XEP-0313), by outcome (ok, error)"),
    m("rookery_archive_query_seconds", Histogram(SECONDS), S, &[], "Time to answer an archive page request"),
    m("rookery_offline_stored_total", Counter, N, &[], "Offline messages stored"),
    m("rookery_offline_drained_total", Counter, N, &[], "Offline messages delivered to a session"),

    m("rookery_stanzas_for_older_nodes_total", Counter, N, &[], "Stanzas that a node of an older version could not take: they wait, or their senders get an error"),

    // Other servers.
    m("rookery_remote_stanzas_total", Counter, N, &["direction"], "Stanzas of other servers (in) and to other servers (out)"),
    m("rookery_links", Gauge, N, &[], "Pairs of domains that this node speaks for with other servers"),
    m("rookery_streams", Gauge, N, &["direction"], "Streams between servers, by the side that opened them: another server (in), or this node (out)"),
    m("rookery_stream_proofs_total", Counter, N, &["proof", "direction"],
        "Domains of other servers that were proved on a stream, by how (certificate, dane, posh, dialback) and direction (in, out)"),
    m("rookery_stream_resumptions_total", Counter, N, &["outcome"], "Attempts of other servers to resume a lost stream (XEP-0198), by outcome (ok, unknown)"),
    m("rookery_dialback_total", Counter, N, &["outcome"],
        "Dialback keys of other servers that were verified (XEP-0220), by outcome (valid, invalid, error); unasked: answers that nobody asked for"),
    m("rookery_link_streams", Gauge, N, &[], "Open streams to other servers"),
    m("rookery_link_stanzas", Gauge, N, &[], "Stanzas to other servers in memory: waiting, or sent and not confirmed"),
    m("rookery_link_dials_total", Counter, N, &["outcome"], "Attempts to open a stream to another server, by outcome (ok, failed)"),
    m("rookery_link_resumptions_total", Counter, N, &["outcome"], "Streams to other servers that were to be resumed (XEP-0198), by outcome (resumed, failed)"),
    m("rookery_link_returned_total", Counter, N, &["condition"], "Stanzas to other servers that went back to their senders, by RFC 6120 condition"),
    m("rookery_presence_later_total", Counter, N, &[], "Presence to other servers and components for which there was no room, and that is told again when there is"),
    m("rookery_link_renumbered_total", Counter, N, &[], "Stanzas to other servers that got a new number before they were sent"),
    m("rookery_link_unproven_total", Counter, N, &[], "Stanzas to servers without XEP-0198 that were written to the stream and not confirmed by the answer to a ping in time"),

    // Components.
    m("rookery_component_connections", Gauge, N, &["component"], "Open connections of components, by name"),
    m("rookery_component_stanzas_total", Counter, N, &["component", "direction"], "Stanzas of components (from) and to components (to), by name"),
    m("rookery_component_refused_total", Counter, N, &[], "Handshakes of components with a wrong secret"),

    // The store.
    m("rookery_store_read_seconds", Histogram(SECONDS), S, &[], "Time of a read from a store outside this process"),
    m("rookery_store_commit_seconds", Histogram(SECONDS), S, &[], "Time of a commit, until it is durable"),
    m("rookery_store_commit_bytes", Histogram(BYTES), B, &[], "Size of a commit: keys and values written"),
    m("rookery_store_conflicts_total", Counter, N, &[], "Commits refused because another transaction changed the same data first"),
    m("rookery_store_too_old_total", Counter, N, &[], "Transactions refused because they took longer than 5 s"),
    m("rookery_store_unknown_results_total", Counter, N, &[], "Commits whose outcome is unknown because the store's answer was lost"),
    m("rookery_store_retries_total", Counter, N, &["class"], "Transactions run again, by class of error"),
    m("rookery_store_batch_size", Histogram(COUNTS), N, &["of"],
        "Size of batches: bodies in one transaction (bodies), or commits in one write (commits)"),
    m("rookery_store_free_bytes", Gauge, B, &[], "Free space on the disk of the embedded store"),
    m("rookery_store_queue_length", Gauge, N, &["queue"], "Entries that wait for the store, by queue (bodies, commits)"),
    m("rookery_maintenance_removed_total", Counter, N, &["what"],
        "Expired data removed in the background, by kind: archive_days (days of archives and queues), seen_rows, marks"),
    m("rookery_maintenance_failures_total", Counter, N, &[], "Background jobs that failed; they are repeated"),

    // The program itself.
    m("rookery_ready", Gauge, N, &[], "1 if the node is ready, 0 if not; /readyz has the reasons"),
    m("rookery_build_info", Gauge, N, &["version"], "Always 1; the version is in the label"),
    m("rookery_uptime_seconds", Gauge, S, &[], "Seconds since the node started"),
    m("rookery_invariant_violations_total", Counter, N, &["name"], "Violated invariants, by name: bugs in Rookery; alert on any"),
    m("rookery_log_lines_lost_total", Counter, N, &[], "Log lines dropped because the reader of the log is too slow"),
    m("rookery_http_requests_total", Counter, N, &["path", "status"], "Requests to the HTTP listener"),
    m("rookery_admin_requests_total", Counter, N, &["method", "outcome"], "Requests on the admin socket"),
    m("process_resident_memory_bytes", Gauge, B, &[], "Resident memory of the process"),
    m("process_cpu_seconds_total", Gauge, S, &[], "User and system CPU time of the process"),
    m("process_threads", Gauge, N, &[], "Threads of the process"),
    m("process_open_fds", Gauge, N, &[], "Open file descriptors of the process"),
    m("process_max_fds", Gauge, N, &[], "Limit of open file descriptors of the process"),

    // The cluster: members, shards, and the channel between nodes.
    m("rookery_mesh_beats_total", Counter, N, &["outcome"], "Heartbeats of this node, by outcome (ok, or the class of the error)"),
    m("rookery_mesh_beat_seconds", Histogram(SECONDS), S, &[], "Time of the transaction of a heartbeat"),
    m("rookery_mesh_leases_lost_total", Counter, N, &[], "How often the lease was lost because no heartbeat was committed in time"),
    m("rookery_mesh_fenced_total", Counter, N, &["class"], "Writes refused by the fence because this node is dead or does not own the shard, by class"),
    m("rookery_mesh_fenced_for_good_total", Counter, N, &[], "How often this node was declared dead"),
    m("rookery_mesh_contradictions_total", Counter, N, &[], "Rows in the store that no correct node can have written; alert on any"),
    m("rookery_mesh_nodes", Gauge, N, &["state"], "Nodes of the cluster, by state"),
    m("rookery_mesh_shards_held", Gauge, N, &[], "Shards that this node owns"),
    m("rookery_mesh_shards_free", Gauge, N, &[], "Shards that no node owns"),
    m("rookery_mesh_claims_total", Counter, N, &[], "Shards that this node claimed"),
    m("rookery_mesh_claim_seconds", Histogram(SECONDS), S, &[], "Time of a transaction that claims shards"),
    m("rookery_parcels_again_total", Counter, N, &[], "Messages between nodes that came back because the home changed, and were sent to the new home"),
    m("rookery_parcels_called_back_total", Counter, N, &[], "Messages between nodes that were recalled on their way to a former home, and sent to the new home"),
    m("rookery_presence_outdated_total", Counter, N, &[], "Presence that a node sent which had lost the shard of its user"),
    m("rookery_parcels_early_total", Counter, N, &[], "Messages that arrived for a shard before this node knew that it owns the shard"),
    m("rookery_sessions_replaced_total", Counter, N, &[], "Sessions that ended because a newer session has the same resource, found when their user was loaded or taken over"),
    m("rookery_sessions_attached_total", Counter, N, &[], "Sessions reattached to their connection after their home died or moved"),
    m("rookery_connections_called_back_total", Counter, N, &[], "Connections on other nodes that missed a message and had to reattach"),
    m("rookery_stanzas_elsewhere_total", Counter, N, &[], "Messages not stored here because the home of the user is another node, which receives them"),
    m("rookery_users_moved_total", Counter, N, &[], "Users that moved to another node with their shard"),
    m("rookery_mesh_releases_total", Counter, N, &[], "Shards that this node released"),
    m("rookery_mesh_release_seconds", Histogram(SECONDS), S, &[], "Time of a round that releases shards"),
    m("rookery_mesh_handoffs_late_total", Counter, N, &[], "Rounds in which users were not moved in time"),
    m("rookery_mesh_probes_total", Counter, N, &["answer"], "Probes of nodes without heartbeats, by answer"),
    m("rookery_mesh_votes_total", Counter, N, &[], "Votes of this node that another is dead"),
    m("rookery_mesh_deaths_total", Counter, N, &[], "Nodes that this node declared dead"),
    m("rookery_mesh_map_readings_total", Counter, N, &[], "Reads of the shard map"),
    m("rookery_mesh_connected", Gauge, N, &["peer"], "1 if the channel to the node is connected, else 0"),
    m("rookery_mesh_connects_total", Counter, N, &["peer", "outcome"], "Attempts to connect to a node, by outcome (ok, failed, refused)"),
    m("rookery_mesh_turned_away_total", Counter, N, &["reason"], "Connections from other nodes that were refused, by reason"),
    m("rookery_mesh_waiting_envelopes", Gauge, N, &["peer"], "Envelopes that wait to be sent to a node"),
    m("rookery_mesh_waiting_bytes", Gauge, B, &["peer"], "Size of the envelopes that wait, in bytes"),
    m("rookery_mesh_in_flight_envelopes", Gauge, N, &["peer"], "Envelopes sent to a node and not answered yet"),
    m("rookery_mesh_in_flight_bytes", Gauge, B, &["peer"], "Size of the envelopes in flight, in bytes"),
    m("rookery_mesh_stalls_total", Counter, N, &["peer"], "How often sending stopped because the credit of the other node was used up"),
    m("rookery_mesh_full_total", Counter, N, &["peer"], "Envelopes refused because the queue for the node is full"),
    m("rookery_mesh_sent_envelopes_total", Counter, N, &["peer"], "Envelopes sent to a node"),
    m("rookery_mesh_sent_bytes_total", Counter, B, &["peer"], "Size of the envelopes sent, in bytes"),
    m("rookery_mesh_sent_messages_total", Counter, N, &["peer"], "gRPC messages that carried the envelopes sent"),
    m("rookery_mesh_received_envelopes_total", Counter, N, &["peer"], "Envelopes received from a node"),
    m("rookery_mesh_received_bytes_total", Counter, B, &["peer"], "Size of the envelopes received, in bytes"),
    m("rookery_mesh_received_messages_total", Counter, N, &["peer"], "gRPC messages that carried the envelopes received"),
    m("rookery_mesh_resent_envelopes_total", Counter, N, &["peer"], "Envelopes sent again after a connection broke"),
    m("rookery_mesh_dropped_again_total", Counter, N, &["peer"], "Envelopes received twice and dropped"),
    m("rookery_mesh_outcomes_total", Counter, N, &["peer", "outcome"], "Envelopes by outcome (taken, not_owner, lost)"),
];
