/** Those at the end of the list of migrations, which are appended to in the same way. */
export const LATER_MIGRATIONS = [
  // Who pulled what, for as long as its bound allows: the oldest are found along the index.
  `
  create table pull (
    digest text not null,
    caller text not null,
    registry text not null,
    name text not null,
    address text,
    first_at integer not null,
    last_at integer not null,
    pulls integer not null,
    primary key (digest, caller, registry, name)
  ) strict, without rowid;

  create index pull_last on pull (last_at);
  `,
  // Tokens of machines, without their secrets.
  `
  create table robot (
    name text primary key,
    id text not null unique,
    secret_hash text not null unique,
    may text not null,
    places text not null,
    created_at integer not null,
    expires_at integer,
    used_at integer
  ) strict;
  `,
  // How many bytes were pushed to a repository, which each push asks. Triggers keep it, so that no statement can forget it.
  `
  alter table repository add column local_bytes integer not null default 0;
  update repository set local_bytes = (
    select coalesce(sum(size), 0) from repository_blob as link
    where link.repository = repository.id and link.origin = 'local'
  );
  create trigger local_bytes_added after insert on repository_blob when new.origin = 'local'
  begin
    update repository set local_bytes = local_bytes + new.size where id = new.repository;
  end;
  create trigger local_bytes_removed after delete on repository_blob when old.origin = 'local'
  begin
    update repository set local_bytes = local_bytes - old.size where id = old.repository;
  end;
  create trigger local_bytes_changed after update of origin, size on repository_blob
  when old.origin != new.origin or old.size != new.size
  begin
    update repository
    set local_bytes = local_bytes + iif(new.origin = 'local', new.size, 0) - iif(old.origin = 'local', old.size, 0)
    where id = new.repository;
  end;
  `,
  // Who began an upload: one caller may have so many that have not ended.
  `
  alter table upload add column holder text;
  create index upload_by_holder on upload (holder) where holder is not null;
  `,
  // Manifests have numbers, and links and references name these. What is stored goes to the end of its tables and of all
  // indexes but two, those of digests. An index is made last, in its own order, which takes a fraction of the time, and a
  // table is dropped as soon as it is copied: the next one takes its pages.
  `
  create table numbered_manifest (
    id integer primary key,
    digest text not null,
    size integer not null,
    bytes blob not null
  ) strict;
  insert into numbered_manifest (digest, size, bytes) select digest, size, bytes from manifest order by rowid;
  drop table manifest;
  create unique index manifest_by_digest on numbered_manifest (digest);

  create table numbered_link (
    id integer primary key,
    repository integer not null references repository (id),
    manifest integer not null references manifest (id),
    origin text not null check (origin in ('upstream', 'local')),
    media_type text not null,
    linked_at integer not null,
    last_access integer not null,
    expires_at integer,
    uses integer not null default 0,
    age real not null default 0
  ) strict;
  insert into numbered_link
    select
      link.id, link.repository, manifest.id, link.origin, link.media_type, link.linked_at, link.last_access,
      link.expires_at, link.uses, link.age
    from repository_manifest as link cross join numbered_manifest as manifest
    where manifest.digest = link.digest
    order by link.id;
  drop table repository_manifest;

  create table numbered_reference (
    manifest integer not null references manifest (id),
    position integer not null,
    child text not null,
    kind text not null check (kind in ('blob', 'manifest')),
    size integer not null,
    required integer not null check (required in (0, 1)),
    primary key (manifest, position)
  ) strict, without rowid;
  insert into numbered_reference
    select manifest.id, reference.position, reference.child, reference.kind, reference.size, reference.required
    from numbered_manifest as manifest cross join reference
    where reference.manifest = manifest.digest
    order by manifest.id, reference.position;
  drop table reference;

  alter table numbered_manifest rename to manifest;
  alter table numbered_link rename to repository_manifest;
  alter table numbered_reference rename to reference;
  create unique index repository_manifest_by_repository on repository_manifest (repository, manifest);
  create index repository_manifest_by_manifest on repository_manifest (manifest, repository);
  create index repository_manifest_by_expiry on repository_manifest (expires_at) where expires_at is not null;
  create index reference_by_child on reference (child, manifest);
  `,
] as const;
