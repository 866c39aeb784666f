/** Who logs in, where a table needs a login. */
export const USER = {name: 'alice', password: 'secret'};

/** The line of the htpasswd file. A low cost, because some registries compare it with each request: `htpasswd -nbB -C 4 alice secret` */
export const HTPASSWD = 'alice:$2y$04$hQgdERlovK4VT.ic/qovhuMC6CSdcqOzO.ZxOON4PymLOtX/eEVne\n';
