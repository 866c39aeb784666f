import {LATER_MIGRATIONS} from './later-migrations.ts';

/** Applied in order, each once. One that was released is never changed: a later change is a further entry. */
export const MIGRATIONS = [
  `
  create table repository (
    id integer primary key,
    registry text not null,
    name text not null,
    unique (registry, name)
  ) strict;

  create table manifest (
    digest text primary key,
    size integer not null,
    bytes blob not null
  ) strict;

  create table repository_manifest (
    id integer primary key,
    repository integer not null references repository (id),
    digest text not null references manifest (digest),
    origin text not null check (origin in ('upstream', 'local')),
    media_type text not null,
    linked_at integer not null,
    last_access integer not null,
    unique (repository, digest)
  ) strict;
  create index repository_manifest_by_digest on repository_manifest (digest, repository);

  create table tag (
    repository integer not null references repository (id),
    name text not null,
    origin text not null check (origin in ('upstream', 'local')),
    digest text not null,
    checked_at integer not null,
    gone_at integer,
    primary key (repository, name, origin)
  ) strict;
  create index tag_by_digest on tag (repository, digest);

  create table tag_list (
    repository integer primary key references repository (id),
    names text not null,
    checked_at integer not null
  ) strict;

  create table blob (
    digest text primary key,
    size integer not null,
    state text not null check (state in ('ready', 'deleting')),
    stored_at integer not null,
    last_access integer not null
  ) strict;

  create table repository_blob (
    repository integer not null references repository (id),
    digest text not null,
    origin text not null check (origin in ('upstream', 'local')),
    size integer not null,
    linked_at integer not null,
    primary key (repository, digest)
  ) strict;

  create table reference (
    manifest text not null references manifest (digest),
    position integer not null,
    child text not null,
    kind text not null check (kind in ('blob', 'manifest')),
    size integer not null,
    primary key (manifest, position)
  ) strict;
  create index reference_by_child on reference (child, manifest);

  -- Not "without rowid": SQLite would then go through the primary key where one type is asked for.
  create table referrer (
    repository integer not null references repository (id),
    subject text not null,
    seq integer not null,
    digest text not null,
    artifact_type text not null,
    descriptor text not null,
    source text not null check (source in ('content', 'api', 'tag')),
    listed integer not null check (listed in (0, 1)),
    primary key (repository, subject, seq)
  ) strict;
  create index referrer_by_type on referrer (repository, subject, artifact_type, seq);
  create unique index referrer_by_digest on referrer (repository, digest, subject);

  create table referrer_list (
    repository integer not null references repository (id),
    subject text not null,
    next_seq integer not null,
    version integer not null,
    checked_at integer,
    source text check (source in ('api', 'tag')),
    primary key (repository, subject)
  ) strict;
  `,
  // What waits to be collected is marked where it comes to be so, since looking for it among millions of rows would
  // hold up everything else. The partial indexes hold the marked rows alone.
  `
  alter table repository_manifest add column expires_at integer;
  create index repository_manifest_by_expiry on repository_manifest (expires_at) where expires_at is not null;

  -- Manifests without a link. Not a column of manifest: marking would write the bytes once more.
  create table loose_manifest (
    digest text primary key references manifest (digest)
  ) strict;
  insert into loose_manifest
    select digest from manifest
    where not exists (select 1 from repository_manifest as link where link.digest = manifest.digest);

  create index tag_by_local_name on tag (repository, name) where origin = 'local';

  -- Of a local link: whether no manifest that the repository is linked to names the blob.
  alter table repository_blob add column loose integer not null default 0 check (loose in (0, 1));
  update repository_blob set loose = 1
    where origin = 'local' and not exists (
      select 1 from reference
      join repository_manifest as link on link.digest = reference.manifest
      where reference.child = repository_blob.digest and link.repository = repository_blob.repository
    );
  create index repository_blob_loose on repository_blob (linked_at) where loose = 1;
  create index repository_blob_by_digest on repository_blob (digest, repository);

  -- Whether no repository is linked to the blob.
  alter table blob add column loose integer not null default 0 check (loose in (0, 1));
  update blob set loose = 1
    where not exists (select 1 from repository_blob as link where link.digest = blob.digest);
  create index blob_loose on blob (stored_at) where loose = 1;
  create index blob_deleting on blob (digest) where state = 'deleting';

  -- Names its repository by words: an upload that comes to nothing leaves no repository behind.
  create table upload (
    id text primary key,
    registry text not null,
    name text not null,
    algorithm text check (algorithm in ('sha256', 'sha512')),
    upstream_location text,
    upstream_offset integer,
    upstream_min_chunk integer,
    touched_at integer not null
  ) strict;
  create index upload_by_touch on upload (touched_at);

  create table tag_journal (
    repository integer not null references repository (id),
    subject text not null,
    digest text not null,
    change text not null check (change in ('add', 'remove')),
    at integer not null,
    written_at integer,
    primary key (repository, subject, digest)
  ) strict;
  create index tag_journal_by_time on tag_journal (at);

  create table lease (
    key text primary key,
    owner text not null,
    until integer not null
  ) strict;
  `,
  // Whoever has read a list reads only what was added to it since, unless this says that what was there is not the same.
  `
  alter table referrer_list add column amended integer not null default 0;
  `,
  // The journal is read along its primary key.
  `
  drop index tag_journal_by_time;
  `,
  // A store without its marker is one whose disk is missing, not one that has lost everything.
  `
  create table blob_store (
    key integer primary key check (key = 1),
    id text not null
  ) strict;
  `,
  // Foreign layers are references as well, those of manifests that are here already included. A position only keeps an
  // order, so theirs lie behind all others.
  `
  alter table reference add column required integer not null default 1 check (required in (0, 1));
  insert into reference (manifest, position, child, kind, size, required)
    select manifest.digest, 1000000 + layer.key, layer.value ->> 'digest', 'blob', layer.value ->> 'size', 0
    from manifest
    join json_each(
      case when json_valid(cast(manifest.bytes as text)) then cast(manifest.bytes as text) else '{}' end,
      '$.layers'
    ) as layer
    -- Most manifests name none, and need not be parsed: 'foreign' and 'nondistributable' as bytes.
    where (instr(manifest.bytes, x'666f726569676e') > 0 or instr(manifest.bytes, x'6e6f6e64697374726962757461626c65') > 0)
      and layer.type = 'object'
      and typeof(layer.key) = 'integer'
      and typeof(layer.value ->> 'size') = 'integer'
      -- The largest integer that can be read again.
      and layer.value ->> 'size' between 0 and 9007199254740991
      and (layer.value ->> 'mediaType' like '%.foreign.%' or layer.value ->> 'mediaType' like '%.nondistributable.%')
      and (
        (layer.value ->> 'digest' like 'sha256:%' and length(layer.value ->> 'digest') = 71)
        or (layer.value ->> 'digest' like 'sha512:%' and length(layer.value ->> 'digest') = 135)
      )
      and substr(layer.value ->> 'digest', 8) not glob '*[^0-9a-f]*';
  update repository_blob set loose = 0
    where loose = 1 and exists (
      select 1 from reference
      join repository_manifest as link on link.digest = reference.manifest
      where reference.child = repository_blob.digest and link.repository = repository_blob.repository
    );
  `,
  // What eviction goes by: how often and when a link was used, what is pinned, and what was evicted lately. The partial
  // index finds the few blobs that were pushed here among all that were copied.
  `
  alter table repository_manifest add column uses integer not null default 0;
  alter table repository_manifest add column age real not null default 0;

  create table pin (
    registry text not null,
    name text not null,
    reference text not null,
    at integer not null,
    primary key (registry, name, reference)
  ) strict;

  create table ghost (
    id integer primary key,
    repository integer not null references repository (id),
    digest text not null,
    uses integer not null,
    evicted_at integer not null,
    unique (repository, digest)
  ) strict;

  create table cache_age (
    key integer primary key check (key = 1),
    age real not null
  ) strict;

  create table referrer_list_floor (
    key integer primary key check (key = 1),
    version integer not null,
    seq integer not null
  ) strict;

  create index repository_blob_local on repository_blob (digest, repository) where origin = 'local';
  `,
  // Links outlive the bytes of evicted blobs, so those of copies are bounded: the oldest are found along this index.
  `
  create index repository_blob_copied on repository_blob (linked_at, digest, repository) where origin = 'upstream';
  `,
  ...LATER_MIGRATIONS,
] as const;
