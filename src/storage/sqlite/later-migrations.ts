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
] as const;
