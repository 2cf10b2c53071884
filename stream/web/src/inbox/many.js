/** The largest count of the hub, which means "more than 99". */
export const MANY = 100;
