/** A registry's words without what a terminal would obey, or would show in another order. Lines stay. */
export const printable = (text: string): string => text.replaceAll(/[^\P{Cc}\n]|\p{Cf}/gu, '?');
