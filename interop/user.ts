/** Who logs in, where a table needs a login. */
export const USER = {name: 'alice', password: 'secret'};

/** The line of the htpasswd file: `htpasswd -nbB alice secret` */
export const HTPASSWD = `alice:$2b$10$.EskH6YlY2LPbjU1uHIQPO6m045M8U7gZJ36hXCmWjnW2TDVGX4oe\n`;
