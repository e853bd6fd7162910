-- Who may commit.
CREATE TABLE epochs (
    unit TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    holder TEXT NOT NULL
) WITHOUT ROWID;

-- The number of the latest commit; numbers of blocks and of seen come from it.
CREATE TABLE counter (n INTEGER NOT NULL);
INSERT INTO counter VALUES (0);

-- Message ids per commit, sixteen bytes each.
CREATE TABLE seen (
    n INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    ids BLOB NOT NULL
);

CREATE TABLE outbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    message_id TEXT NOT NULL,
    content_type TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE entities (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    component TEXT,
    doc TEXT NOT NULL
);
CREATE INDEX entities_component ON entities (component);

-- When an entity was last heard of: many small rows to a page, because each event moves one.
CREATE TABLE heard (
    entity INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
);

CREATE TABLE alarms (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    entity TEXT NOT NULL,
    t INTEGER NOT NULL,
    state INTEGER NOT NULL,
    status INTEGER NOT NULL,
    resolved INTEGER,
    last_step INTEGER NOT NULL,
    last_update INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    component TEXT NOT NULL,
    resource TEXT,
    connector TEXT NOT NULL,
    connector_name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    output TEXT NOT NULL,
    doc TEXT NOT NULL
);
-- At most one open alarm per entity.
CREATE UNIQUE INDEX alarms_open ON alarms (entity) WHERE resolved IS NULL;
CREATE INDEX alarms_settled ON alarms (last_step) WHERE resolved IS NULL AND state = 0;
CREATE INDEX alarms_t ON alarms (t);
CREATE INDEX alarms_resolved ON alarms (resolved) WHERE resolved IS NOT NULL;
CREATE INDEX alarms_entity ON alarms (entity, t);

CREATE TABLE steps (
    alarm INTEGER NOT NULL,
    n INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (alarm, n)
) WITHOUT ROWID;

CREATE TABLE series (
    n INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    metric TEXT NOT NULL,
    kind INTEGER NOT NULL,
    unit TEXT,
    min REAL,
    max REAL,
    warn REAL,
    crit REAL,
    UNIQUE (entity, metric)
);

-- The latest packed point of each series; later ones are in blocks.
CREATE TABLE latest (
    series INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    value REAL NOT NULL
);

-- New points: one row per commit, shard of series and five-minute bucket.
CREATE TABLE blocks (
    bucket INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    n INTEGER NOT NULL,
    points BLOB NOT NULL,
    PRIMARY KEY (bucket, shard, n)
) WITHOUT ROWID;

-- The points of a closed five-minute bucket of a series.
CREATE TABLE runs (
    start INTEGER NOT NULL,
    series INTEGER NOT NULL,
    points BLOB NOT NULL,
    PRIMARY KEY (start, series)
) WITHOUT ROWID;

CREATE TABLE five (
    start INTEGER NOT NULL,
    series INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    last REAL NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (start, series)
) WITHOUT ROWID;

CREATE TABLE hours (
    start INTEGER NOT NULL,
    series INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    last REAL NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (start, series)
) WITHOUT ROWID;

CREATE TABLE engine_runs (
    engine TEXT NOT NULL,
    instance TEXT NOT NULL,
    at INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (engine, instance)
) WITHOUT ROWID;
