/** The name of the file that says that all other files of a profile are written. */
export const DONE = 'done.json';
