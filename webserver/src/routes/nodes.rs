//! The server layout: the nodes of the swarm family as they report themselves.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use actix_web::{HttpRequest, HttpResponse, web};
use overstory_model::node::{self, Coverage, NodeReport, NodeStatus, Span};
use overstory_model::{Alarm, Entity, EntityId, Timestamp};
use overstory_store::{EntityQuery, PageRequest};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openapi::{ErrorBody, FieldErrors};
use crate::paging::Meta;
use crate::query::Parameters;
use crate::state::AppState;

/// The most gaps and overlaps that are listed of a group.
const MAX_SPANS: usize = 100;
/// What is asked of the store at once: all nodes, as far as lists go.
const ALL: PageRequest = PageRequest { page: 1, limit: 1000, paginate: false };

/// A part of the hash space, or of logfiles nodes the timestamps, both limits included, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SpanView {
    /// The lowest position, or the first timestamp.
    #[schema(example = "0x0000000000000000")]
    pub min: String,
    /// The highest position, or the last timestamp; below `min` in a range that is empty.
    #[schema(example = "0x7fffffffffffffff")]
    pub max: String,
}

impl From<Span> for SpanView {
    fn from(span: Span) -> Self {
        Self { min: format!("{:#018x}", span.min), max: format!("{:#018x}", span.max) }
    }
}

/// The open alarm of a node.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeAlarm {
    /// The alarm.
    #[serde(rename = "_id")]
    pub id: String,
    /// 0 ok, 1 minor, 2 major, 3 critical.
    pub state: u8,
    /// What it says.
    pub output: String,
}

/// An instance of a node. What it does not report is `null`.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// The entity, `instance/host`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The instance, such as dht-main.
    pub instance: String,
    /// dht, dhtdump, dmq, queue, logfiles, ...
    pub r#type: String,
    /// The nodes that clients use together with it; the type if it is not in another group.
    pub group: String,
    /// The program.
    pub program: Option<String>,
    /// The program's version.
    pub version: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// Where it listens.
    pub address: Option<String>,
    /// The port of the legacy protocol.
    pub port: Option<u16>,
    /// The port of the neo protocol.
    pub neo_port: Option<u16>,
    /// The part of the hash space that it keeps, of logfiles nodes the timestamps; null for types that share none.
    pub range: Option<SpanView>,
    /// running, stopped, or silent: no report for three intervals.
    pub status: &'static str,
    /// When it was started.
    pub started: Option<i64>,
    /// Records.
    pub records: Option<u64>,
    /// Bytes of records.
    pub bytes: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// The most bytes of memory.
    pub memory_limit: Option<u64>,
    /// Open connections.
    pub connections: Option<u64>,
    /// The most connections.
    pub connection_limit: Option<u64>,
    /// Channels.
    pub channels: Option<u64>,
    /// When its last dump ended.
    pub last_dump: Option<i64>,
    /// Whether that succeeded.
    pub last_dump_ok: Option<bool>,
    /// Seconds between dumps.
    pub dump_period_s: Option<u64>,
    /// Seconds between reports.
    pub interval_s: u64,
    /// When it reported last.
    pub reported: i64,
    /// Seconds since then.
    pub age_s: u64,
    /// Its open alarm.
    pub alarm: Option<NodeAlarm>,
}

/// A part of the hash space that two nodes keep, or timestamps of two logfiles nodes whose ranges differ.
#[derive(Debug, Serialize, ToSchema)]
pub struct OverlapView {
    /// The lowest position.
    pub min: String,
    /// The highest position.
    pub max: String,
    /// The entities of both nodes.
    pub nodes: [String; 2],
}

/// Whether the running nodes of a group keep the whole hash space, or take all timestamps.
#[derive(Debug, Serialize, ToSchema)]
pub struct CoverageView {
    /// The type.
    pub r#type: String,
    /// The group.
    pub group: String,
    /// How many of its nodes run.
    pub running: usize,
    /// Whether every position has exactly one running node; logfiles nodes with the same range count as one.
    pub complete: bool,
    /// What no running node keeps; at most 100.
    pub gaps: Vec<SpanView>,
    /// What more than one keeps; at most 100.
    pub overlaps: Vec<OverlapView>,
}

/// A page of nodes and the coverage of all groups.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeListing {
    /// The nodes.
    pub data: Vec<NodeView>,
    /// Where they are in the list.
    pub meta: Meta,
    /// Each group of nodes with ranges, whatever part of the list was asked for.
    pub coverage: Vec<CoverageView>,
}

/// A node and what was found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    id: String,
    report: NodeReport,
    status: NodeStatus,
    age_s: u64,
}

impl Node {
    fn of(entity: &Entity, now: Timestamp) -> Option<Self> {
        let report = NodeReport::read(&entity.infos.get(node::INFO)?.value)?;
        Some(Self { id: entity.id.0.clone(), status: report.status(now), age_s: report.age_s(now), report })
    }

    fn view(self, alarm: Option<&Alarm>) -> NodeView {
        let report = self.report;
        NodeView {
            id: self.id,
            instance: report.instance,
            r#type: report.kind,
            group: report.group,
            program: report.program,
            version: report.version,
            host: report.host,
            address: report.address,
            port: report.port,
            neo_port: report.neo_port,
            range: report.range.map(SpanView::from),
            status: self.status.name(),
            started: report.started,
            records: report.records,
            bytes: report.bytes,
            memory: report.memory,
            memory_limit: report.memory_limit,
            connections: report.connections,
            connection_limit: report.connection_limit,
            channels: report.channels,
            last_dump: report.last_dump,
            last_dump_ok: report.last_dump_ok,
            dump_period_s: report.dump_period_s,
            interval_s: report.interval_s,
            reported: report.reported.0,
            age_s: self.age_s,
            alarm: alarm.map(|alarm| NodeAlarm {
                id: alarm.id.0.clone(),
                state: u8::from(alarm.state()),
                output: alarm.v.output.clone(),
            }),
        }
    }
}

#[utoipa::path(get, path = "/api/v4/nodes", tag = "nodes", summary = "The server layout: the nodes and what they keep",
    params(
        ("search" = Option<String>, Query, description = "Text that the entity's id contains, letter case aside"),
        ("type" = Option<Vec<String>>, Query, description = "Only these types: dht, dhtdump, dmq, queue, logfiles, ...", style = Form, explode = false),
        ("group" = Option<String>, Query, description = "Only this group"),
        ("host" = Option<String>, Query, description = "Only those of this host"),
        ("status" = Option<Vec<String>>, Query, description = "running, stopped, silent", style = Form, explode = false),
        ("sort_by" = Option<String>, Query, description = "_id, type, host, status, records, bytes, memory, connections, channels, last_dump, age_s"),
        ("sort" = Option<String>, Query, description = "asc or desc"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("limit" = Option<u32>, Query, description = "Per page, 1 to 1000, 10 if not given"),
        ("paginate" = Option<bool>, Query, description = "false: up to 10,000 at once")),
    responses((status = 200, description = "A page of them, and the coverage of every group", body = NodeListing),
        (status = 400, description = "Wrong parameters", body = FieldErrors),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_entity is missing", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn list(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = NodeQuery::read(request.query_string())?;
    let _turn = state.turn_to_list(query.page).await?;
    let entities = state.ports.stores.entities.clone();
    let wanted = EntityQuery { info: Some(node::INFO.to_owned()), page: ALL, ..EntityQuery::default() };
    let found = state.shared.store(async move { entities.list(&wanted).await }).await?;
    let now = state.ports.clock.now().secs();
    let nodes: Vec<Node> = found.items.iter().filter_map(|entity| Node::of(entity, now)).collect();
    let coverage = coverage(&nodes);
    let (total, page) = query.select(nodes);
    let ids: Vec<EntityId> = page.iter().map(|node| EntityId(node.id.clone())).collect();
    let alarms = state.ports.stores.alarms.clone();
    let open = state.shared.store(async move { alarms.open_of(&ids).await }).await?;
    let open: HashMap<&str, &Alarm> = open.iter().map(|alarm| (alarm.entity.as_str(), alarm)).collect();
    let view = |node: Node| {
        let alarm = open.get(node.id.as_str()).copied();
        node.view(alarm)
    };
    let data = page.into_iter().map(view).collect();
    Ok(HttpResponse::Ok().json(NodeListing { data, meta: Meta::new(query.page, total), coverage }))
}

#[derive(Debug, Clone, Copy, Default)]
enum Sort {
    #[default]
    Id,
    Type,
    Host,
    Status,
    Records,
    Bytes,
    Memory,
    Connections,
    Channels,
    LastDump,
    Age,
}

struct NodeQuery {
    search: Option<String>,
    types: Vec<String>,
    group: Option<String>,
    host: Option<String>,
    statuses: Vec<NodeStatus>,
    sort_by: Sort,
    descending: bool,
    page: PageRequest,
}

impl NodeQuery {
    fn read(text: &str) -> Result<Self, ApiError> {
        let mut query = Parameters::new(text)?;
        let mut statuses = Vec::new();
        for word in query.list("status") {
            let all = [NodeStatus::Running, NodeStatus::Stopped, NodeStatus::Silent];
            match all.into_iter().find(|status| status.name() == word) {
                Some(status) => statuses.push(status),
                None => query.refuse("status", "has to be running, stopped or silent"),
            }
        }
        let sorts = [
            ("_id", Sort::Id),
            ("type", Sort::Type),
            ("host", Sort::Host),
            ("status", Sort::Status),
            ("records", Sort::Records),
            ("bytes", Sort::Bytes),
            ("memory", Sort::Memory),
            ("connections", Sort::Connections),
            ("channels", Sort::Channels),
            ("last_dump", Sort::LastDump),
            ("age_s", Sort::Age),
        ];
        let nodes = Self {
            search: query.text("search").map(|text| text.to_ascii_lowercase()),
            types: query.list("type"),
            group: query.text("group"),
            host: query.text("host"),
            statuses,
            sort_by: query.choice("sort_by", &sorts).unwrap_or_default(),
            descending: query.descending(false),
            page: query.page(),
        };
        query.finish()?;
        Ok(nodes)
    }

    fn accepts(&self, node: &Node) -> bool {
        let report = &node.report;
        self.search.as_ref().is_none_or(|text| node.id.to_ascii_lowercase().contains(text.as_str()))
            && (self.types.is_empty() || self.types.contains(&report.kind))
            && self.group.as_ref().is_none_or(|group| report.group == *group)
            && self.host.as_ref().is_none_or(|host| report.host.as_ref() == Some(host))
            && (self.statuses.is_empty() || self.statuses.contains(&node.status))
    }

    /// Those that are meant, how many, and of them the page.
    fn select(&self, mut nodes: Vec<Node>) -> (u64, Vec<Node>) {
        nodes.retain(|node| self.accepts(node));
        nodes.sort_by(|a, b| {
            let order = self.compare(a, b);
            let order = if self.descending { order.reverse() } else { order };
            order.then_with(|| a.id.cmp(&b.id))
        });
        let total = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
        let (offset, limit) = self.page.offset_and_limit();
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        (total, nodes.into_iter().skip(number(offset)).take(number(limit)).collect())
    }

    fn compare(&self, a: &Node, b: &Node) -> Ordering {
        let (x, y) = (&a.report, &b.report);
        match self.sort_by {
            Sort::Id => a.id.cmp(&b.id),
            Sort::Type => x.kind.cmp(&y.kind),
            Sort::Host => x.host.cmp(&y.host),
            Sort::Status => a.status.cmp(&b.status),
            Sort::Records => x.records.cmp(&y.records),
            Sort::Bytes => x.bytes.cmp(&y.bytes),
            Sort::Memory => x.memory.cmp(&y.memory),
            Sort::Connections => x.connections.cmp(&y.connections),
            Sort::Channels => x.channels.cmp(&y.channels),
            Sort::LastDump => x.last_dump.cmp(&y.last_dump),
            Sort::Age => a.age_s.cmp(&b.age_s),
        }
    }
}

/// Looks at the ranges of the running nodes, group by group. Groups whose nodes have no ranges have none.
fn coverage(nodes: &[Node]) -> Vec<CoverageView> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Node>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.report.range.is_some()) {
        groups.entry((&node.report.kind, &node.report.group)).or_default().push(node);
    }
    let view = |((kind, group), members): ((&str, &str), Vec<&Node>)| {
        let running: Vec<_> = members.into_iter().filter(|node| node.status == NodeStatus::Running).collect();
        let spans: Vec<Span> = running.iter().filter_map(|node| node.report.range).collect();
        let coverage = Coverage::of_type(kind, &spans);
        let id = |index: usize| running.get(index).map_or_else(String::new, |node| node.id.clone());
        let overlap = |(span, a, b): &(Span, usize, usize)| {
            let SpanView { min, max } = SpanView::from(*span);
            OverlapView { min, max, nodes: [id(*a), id(*b)] }
        };
        CoverageView {
            r#type: kind.to_owned(),
            group: group.to_owned(),
            running: running.len(),
            complete: coverage.is_complete(),
            gaps: coverage.gaps.iter().take(MAX_SPANS).map(|gap| SpanView::from(*gap)).collect(),
            overlaps: coverage.overlaps.iter().take(MAX_SPANS).map(overlap).collect(),
        }
    };
    groups.into_iter().map(view).collect()
}
