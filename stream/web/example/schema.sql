CREATE TABLE users (
    id   text PRIMARY KEY, -- also the recipient of the user's notifications
    name text NOT NULL
);

INSERT INTO users VALUES ('alice', 'Alice'), ('bob', 'Bob'), ('carol', 'Carol');

CREATE TABLE tasks (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title    text    NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    author   text    NOT NULL REFERENCES users,
    assignee text    NOT NULL REFERENCES users,
    done     boolean NOT NULL DEFAULT false
);

CREATE INDEX ON tasks (assignee, id);
CREATE INDEX ON tasks (author, id);

-- The table of connect-pg-simple.
CREATE TABLE sessions (
    sid    text         PRIMARY KEY,
    sess   json         NOT NULL,
    expire timestamp(6) NOT NULL
);

CREATE INDEX ON sessions (expire);
