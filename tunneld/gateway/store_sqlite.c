/* Session records in SQLite.  One worker thread owns the database once it runs: it takes everything that is queued,
 * writes it as one transaction and hands the results back to the loop.  What nobody waits for lies LAZY for company,
 * and for what takes its place: a record of the same session that is newer.  WAL with synchronous=NORMAL: what was
 * committed survives the death of the process, a power cut may take the last moments. */
#include "tunneld/gateway/store.h"
#include "lib/alloc.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define SCHEMA_VERSION 1
#define LAZY (10 * TD_MS)
#define LOOK_BACK 256u /* records, for one of the same session */
#define TELL_AT 64u    /* records that were written and that nobody asked for */
#define TAKEN "store %s: another gateway uses it; stop that one or give this one a store of its own"

enum {
	COL_ID,
	COL_OWNER,
	COL_TARGET,
	COL_DOCUMENT,
	COL_PARAMETERS,
	COL_REASON,
	COL_CLIENT_ID,
	COL_STATUS,
	COL_OUTPUT,
	NTEXT
};

struct op {
	struct op *next;
	bool del;
	char *text[NTEXT];
	uint64_t started_ms, ended_ms, expires_ms, grants;
	unsigned ntokens;
	struct td_store_token tokens[TD_STORE_TOKENS];
	td_store_done *fn;
	void *ctx;
	int err;
};

struct queue {
	struct op *first, *last;
};

struct sqlite {
	struct td_loop *l;
	const struct td_store_cb *cb; /* or NULL */
	void *ctx;
	int guard; /* the file, locked; closed after db, whose own locks would go with it */
	sqlite3 *db;
	sqlite3_stmt *put, *put_token, *del, *del_tokens;
	ev_async done_watcher;
	pthread_t thread;
	bool running;
	bool complained; /* on the loop: one line for a run of failures */
	pthread_mutex_t mu;
	pthread_cond_t cond;
	/* under mu */
	struct queue todo, done;
	unsigned ndone;
	bool urgent; /* somebody waits for one of todo */
	bool faulty; /* the last batch was not written */
	bool stop;
	uint64_t queued, written, failed;
	char fault[200];
};

static void queue_push(struct queue *q, struct op *o)
{
	o->next = NULL;
	if (q->last)
		q->last->next = o;
	else
		q->first = o;
	q->last = o;
}

static void op_free(struct op *o)
{
	for (int i = 0; i < NTEXT; i++)
		tnl_free(o->text[i]);
	tnl_free(o);
}

/* --- the worker --------------------------------------------------------------- */
static int run_statement(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int write_tokens(struct sqlite *s, const struct op *o)
{
	sqlite3_bind_text(s->del_tokens, 1, o->text[COL_ID], -1, SQLITE_STATIC);
	int rc = run_statement(s->del_tokens);
	for (unsigned i = 0; rc == SQLITE_OK && i < o->ntokens; i++) {
		const struct td_store_token *t = &o->tokens[i];
		sqlite3_bind_text(s->put_token, 1, o->text[COL_ID], -1, SQLITE_STATIC);
		sqlite3_bind_blob(s->put_token, 2, t->hash, sizeof(t->hash), SQLITE_STATIC);
		sqlite3_bind_int(s->put_token, 3, t->role);
		sqlite3_bind_int64(s->put_token, 4, (sqlite3_int64)t->expires_ms);
		if (t->bound)
			sqlite3_bind_text(s->put_token, 5, t->client_id, -1, SQLITE_STATIC);
		else
			sqlite3_bind_null(s->put_token, 5);
		rc = run_statement(s->put_token);
	}
	return rc;
}

static int write_op(struct sqlite *s, const struct op *o)
{
	if (o->del) {
		sqlite3_bind_text(s->del, 1, o->text[COL_ID], -1, SQLITE_STATIC);
		int rc = run_statement(s->del);
		return rc == SQLITE_OK ? write_tokens(s, o) : rc;
	}
	for (int i = 0; i < NTEXT; i++)
		sqlite3_bind_text(s->put, i + 1, o->text[i] ? o->text[i] : "", -1, SQLITE_STATIC);
	sqlite3_bind_int64(s->put, NTEXT + 1, (sqlite3_int64)o->started_ms);
	sqlite3_bind_int64(s->put, NTEXT + 2, (sqlite3_int64)o->ended_ms);
	sqlite3_bind_int64(s->put, NTEXT + 3, (sqlite3_int64)o->expires_ms);
	sqlite3_bind_int64(s->put, NTEXT + 4, (sqlite3_int64)o->grants);
	int rc = run_statement(s->put);
	return rc == SQLITE_OK ? write_tokens(s, o) : rc;
}

static int write_all(struct sqlite *s, const struct queue *q)
{
	int rc = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	for (const struct op *o = q->first; o && rc == SQLITE_OK; o = o->next)
		rc = write_op(s, o);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
	return rc;
}

static void write_batch(struct sqlite *s, struct queue *q)
{
	char fault[sizeof(s->fault)] = "";
	int rc = write_all(s, q);
	if (rc != SQLITE_OK) {
		snprintf(fault, sizeof(fault), "%s", sqlite3_errmsg(s->db));
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	}
	pthread_mutex_lock(&s->mu);
	bool tell = s->faulty || rc != SQLITE_OK; /* the log */
	while (q->first) {
		struct op *o = q->first;
		q->first = o->next;
		o->err = rc == SQLITE_OK ? 0 : TNL_EIO;
		s->queued--;
		if (o->err)
			s->failed++;
		else
			s->written++;
		tell |= o->fn || ++s->ndone >= TELL_AT;
		queue_push(&s->done, o);
	}
	s->faulty = rc != SQLITE_OK;
	if (fault[0])
		memcpy(s->fault, fault, sizeof(fault));
	pthread_mutex_unlock(&s->mu);
	if (tell)
		ev_async_send(s->l->ev, &s->done_watcher);
}

/* Until there is something to write and it is time to. */
static void wait_for_work(struct sqlite *s)
{
	struct timespec at;
	while (!s->todo.first && !s->stop)
		pthread_cond_wait(&s->cond, &s->mu);
	if (s->urgent || s->stop)
		return;
	clock_gettime(CLOCK_MONOTONIC, &at);
	uint64_t until = (uint64_t)at.tv_sec * TD_SEC + (uint64_t)at.tv_nsec + LAZY;
	at.tv_sec = (time_t)(until / TD_SEC);
	at.tv_nsec = (long)(until % TD_SEC);
	while (!s->urgent && !s->stop && pthread_cond_timedwait(&s->cond, &s->mu, &at) == 0)
		;
}

static void *run_worker(void *arg)
{
	struct sqlite *s = arg;
	for (;;) {
		pthread_mutex_lock(&s->mu);
		wait_for_work(s);
		struct queue q = s->todo;
		s->todo = (struct queue){NULL, NULL};
		s->urgent = false;
		bool stop = s->stop;
		pthread_mutex_unlock(&s->mu);
		if (q.first)
			write_batch(s, &q);
		if (stop)
			return NULL; /* push_op() is not called any more: the queue was empty or is written */
	}
}

/* --- the loop's side ------------------------------------------------------------ */
static void tell_unwritten(const struct sqlite *s, const char *id)
{
	if (s->cb && s->cb->unwritten)
		s->cb->unwritten(s->ctx, id);
}

static void on_done(struct ev_loop *ev, ev_async *w, int revents)
{
	struct sqlite *s = w->data;
	char fault[sizeof(s->fault)];
	pthread_mutex_lock(&s->mu);
	struct queue q = s->done;
	s->done = (struct queue){NULL, NULL};
	s->ndone = 0;
	memcpy(fault, s->fault, sizeof(fault));
	pthread_mutex_unlock(&s->mu);
	while (q.first) {
		struct op *o = q.first;
		q.first = o->next;
		if (o->err && !s->complained)
			td_error(
			    "store", o->text[COL_ID],
			    "session record not written, tried again until it is; a restart forgets it error=\"%s\"",
			    fault);
		else if (!o->err && s->complained)
			td_warn("store", NULL, "session records are written again");
		s->complained = o->err != 0;
		if (o->err)
			tell_unwritten(s, o->text[COL_ID]);
		if (o->fn)
			o->fn(o->ctx, o->err);
		op_free(o);
	}
}

/* The last that waits of the same session. */
static struct op *find_waiting(const struct sqlite *s, const struct op *o)
{
	struct op *found = NULL;
	unsigned n = 0;
	for (struct op *w = s->todo.first; w && n < LOOK_BACK; w = w->next, n++)
		if (strcmp(w->text[COL_ID], o->text[COL_ID]) == 0)
			found = w;
	return n < LOOK_BACK ? found : NULL;
}

/* In the place of one that waits, which is then of no more use; o is what is left over. */
static bool take_place(struct sqlite *s, struct op *o)
{
	struct op *w = o->del ? NULL : find_waiting(s, o);
	if (!w || w->del || (w->fn && o->fn))
		return false;
	struct op *next = w->next, old = *w;
	*w = *o;
	w->next = next;
	w->started_ms = old.started_ms;
	if (old.fn) {
		w->fn = old.fn;
		w->ctx = old.ctx;
	}
	*o = old;
	return true;
}

static void push_op(struct sqlite *s, struct op *o)
{
	pthread_mutex_lock(&s->mu);
	bool wakes = !s->todo.first || (o->fn && !s->urgent);
	s->urgent |= o->fn != NULL;
	bool placed = take_place(s, o);
	if (!placed) {
		queue_push(&s->todo, o);
		s->queued++;
	}
	if (wakes)
		pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->mu);
	if (placed)
		op_free(o);
}

static void sqlite_put(void *impl, const struct td_store_session *r, td_store_done *fn, void *ctx)
{
	struct sqlite *s = impl;
	struct op *o = tnl_calloc(1, sizeof(*o));
	const char *const text[NTEXT] = {r->id,	    r->owner,	  r->target, r->document, r->parameters,
					 r->reason, r->client_id, r->status, r->output};
	for (int i = 0; o && i < NTEXT; i++) {
		if (text[i] && !(o->text[i] = tnl_strdup(text[i]))) {
			op_free(o);
			o = NULL;
		}
	}
	if (!o) {
		tell_unwritten(s, r->id);
		if (fn)
			fn(ctx, TNL_ENOMEM);
		return;
	}
	o->started_ms = r->started_ms;
	o->ended_ms = r->ended_ms;
	o->expires_ms = r->expires_ms;
	o->grants = r->grants;
	o->ntokens = TNL_MIN(r->ntokens, TD_STORE_TOKENS);
	memcpy(o->tokens, r->tokens, o->ntokens * sizeof(o->tokens[0]));
	o->fn = fn;
	o->ctx = ctx;
	push_op(s, o);
}

static void sqlite_del(void *impl, const char *id)
{
	struct op *o = tnl_calloc(1, sizeof(*o));
	if (!o || !(o->text[COL_ID] = tnl_strdup(id))) {
		tnl_free(o);
		return;
	}
	o->del = true;
	push_op((struct sqlite *)impl, o);
}

static void sqlite_stats(void *impl, struct td_store_stats *out)
{
	struct sqlite *s = impl;
	pthread_mutex_lock(&s->mu);
	*out = (struct td_store_stats){s->queued, s->written, s->failed};
	pthread_mutex_unlock(&s->mu);
}

/* --- loading --------------------------------------------------------------------- */
static void load_tokens(struct sqlite *s, sqlite3_stmt *st, struct td_store_session *r)
{
	sqlite3_bind_text(st, 1, r->id, -1, SQLITE_TRANSIENT);
	while (r->ntokens < TD_STORE_TOKENS && sqlite3_step(st) == SQLITE_ROW) {
		struct td_store_token *t = &r->tokens[r->ntokens];
		if (sqlite3_column_bytes(st, 0) != (int)sizeof(t->hash))
			continue;
		memcpy(t->hash, sqlite3_column_blob(st, 0), sizeof(t->hash));
		t->role = (uint8_t)sqlite3_column_int(st, 1);
		t->expires_ms = (uint64_t)sqlite3_column_int64(st, 2);
		t->bound = sqlite3_column_type(st, 3) != SQLITE_NULL;
		snprintf(t->client_id, sizeof(t->client_id), "%s",
			 t->bound ? (const char *)sqlite3_column_text(st, 3) : "");
		r->ntokens++;
	}
	sqlite3_reset(st);
}

static int sqlite_load(void *impl, void (*each)(void *, const struct td_store_session *), void *ctx)
{
	struct sqlite *s = impl;
	sqlite3_stmt *st = NULL, *tokens = NULL;
	int rc = sqlite3_prepare_v2(s->db,
				    "SELECT id,owner,target,document,parameters,reason,client_id,status,output,"
				    "started_ms,ended_ms,expires_ms,grants FROM session ORDER BY started_ms, id",
				    -1, &st, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(s->db, "SELECT hash,role,expires_ms,client_id FROM token WHERE session=?", -1,
					&tokens, NULL);
	while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct td_store_session r = {0};
		const char **text[NTEXT] = {&r.id,     &r.owner,     &r.target, &r.document, &r.parameters,
					    &r.reason, &r.client_id, &r.status, &r.output};
		for (int i = 0; i < NTEXT; i++)
			*text[i] = (const char *)sqlite3_column_text(st, i);
		r.started_ms = (uint64_t)sqlite3_column_int64(st, NTEXT);
		r.ended_ms = (uint64_t)sqlite3_column_int64(st, NTEXT + 1);
		r.expires_ms = (uint64_t)sqlite3_column_int64(st, NTEXT + 2);
		r.grants = (uint64_t)sqlite3_column_int64(st, NTEXT + 3);
		load_tokens(s, tokens, &r);
		each(ctx, &r);
		rc = SQLITE_OK;
	}
	if (rc != SQLITE_DONE)
		td_error("store", NULL, "reading session records failed error=\"%s\"", sqlite3_errmsg(s->db));
	sqlite3_finalize(st);
	sqlite3_finalize(tokens);
	return rc == SQLITE_DONE ? 0 : TNL_EIO;
}

/* --- opening ----------------------------------------------------------------------- */
static const char schema[] =
    "CREATE TABLE IF NOT EXISTS session(id TEXT PRIMARY KEY, owner TEXT NOT NULL, target TEXT NOT NULL,"
    " document TEXT NOT NULL, parameters TEXT NOT NULL, reason TEXT NOT NULL, client_id TEXT NOT NULL,"
    " status TEXT NOT NULL, output TEXT NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL,"
    " expires_ms INTEGER NOT NULL, grants INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS token(session TEXT NOT NULL, hash BLOB NOT NULL, role INTEGER NOT NULL,"
    " expires_ms INTEGER NOT NULL, client_id TEXT, PRIMARY KEY(session, hash)) WITHOUT ROWID;";

static int read_version(sqlite3 *db)
{
	sqlite3_stmt *st = NULL;
	int v = -1;
	if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		v = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return v;
}

/* Columns that have come since the first version.  Who has that version still reads and writes such a file. */
static int add_columns(sqlite3 *db)
{
	sqlite3_stmt *st = NULL;
	if (sqlite3_prepare_v2(db, "SELECT grants FROM session", -1, &st, NULL) == SQLITE_OK) {
		sqlite3_finalize(st);
		return SQLITE_OK;
	}
	return sqlite3_exec(db, "ALTER TABLE session ADD COLUMN grants INTEGER NOT NULL DEFAULT 0", NULL, NULL, NULL);
}

static int prepare_database(struct sqlite *s)
{
	int rc =
	    sqlite3_exec(s->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=256;",
			 NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db, "BEGIN EXCLUSIVE", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return rc;
	int v = read_version(s->db);
	if (v != 0 && v != SCHEMA_VERSION)
		return SQLITE_MISMATCH;
	char sql[64];
	snprintf(sql, sizeof(sql), "PRAGMA user_version=%d; COMMIT", SCHEMA_VERSION);
	rc = sqlite3_exec(s->db, schema, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = add_columns(s->db);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	const struct {
		sqlite3_stmt **st;
		const char *sql;
	} stmts[] = {
	    {&s->put,
	     "INSERT INTO session(id,owner,target,document,parameters,reason,client_id,status,output,started_ms,"
	     "ended_ms,expires_ms,grants) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
	     "client_id=excluded.client_id,status=excluded.status,output=excluded.output,"
	     "ended_ms=excluded.ended_ms,expires_ms=excluded.expires_ms,grants=excluded.grants"},
	    {&s->put_token, "INSERT OR REPLACE INTO token(session,hash,role,expires_ms,client_id) VALUES(?,?,?,?,?)"},
	    {&s->del, "DELETE FROM session WHERE id=?"},
	    {&s->del_tokens, "DELETE FROM token WHERE session=?"},
	};
	for (size_t i = 0; rc == SQLITE_OK && i < TNL_COUNT(stmts); i++)
		rc = sqlite3_prepare_v2(s->db, stmts[i].sql, -1, stmts[i].st, NULL);
	return rc;
}

static int start_worker(struct sqlite *s)
{
	int rc = td_thread_start(&s->thread, run_worker, s);
	s->running = rc == 0;
	return rc;
}

static void sqlite_close(void *impl)
{
	struct sqlite *s = impl;
	if (s->running) {
		pthread_mutex_lock(&s->mu);
		s->stop = true;
		pthread_cond_signal(&s->cond);
		pthread_mutex_unlock(&s->mu);
		pthread_join(s->thread, NULL);
	}
	ev_async_stop(s->l->ev, &s->done_watcher);
	for (struct op *o = s->done.first, *next; o; o = next) {
		next = o->next;
		op_free(o);
	}
	sqlite3_finalize(s->put);
	sqlite3_finalize(s->put_token);
	sqlite3_finalize(s->del);
	sqlite3_finalize(s->del_tokens);
	sqlite3_close(s->db);
	if (s->guard >= 0)
		close(s->guard);
	pthread_mutex_destroy(&s->mu);
	pthread_cond_destroy(&s->cond);
	tnl_free(s);
}

/* Keeps a second gateway off the same records, and lets readers in: backups are made while it runs.  Made here, so that
 * it is private from its first byte; SQLite's side files take its mode.  The kernel drops the lock with the process. */
static bool take_guard(struct sqlite *s, const char *path, char *why, size_t cap)
{
	s->guard = -1;
	if (strcmp(path, ":memory:") == 0)
		return true;
	s->guard = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->guard >= 0 && flock(s->guard, LOCK_EX | LOCK_NB) == 0)
		return true;
	if (s->guard >= 0 && errno == EWOULDBLOCK)
		snprintf(why, cap, TAKEN, path);
	else
		snprintf(why, cap, "store %s: cannot be opened: %s", path, strerror(errno));
	return false;
}

static void *sqlite_open(struct td_loop *l, const struct td_store_opts *o, char *why, size_t cap)
{
	const char *path = o->spec + strlen(td_store_sqlite.scheme);
	struct sqlite *s = tnl_calloc(1, sizeof(*s));
	if (!s) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	s->l = l;
	s->cb = o->cb;
	s->ctx = o->ctx;
	pthread_mutex_init(&s->mu, NULL);
	pthread_condattr_t clock;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&s->cond, &clock);
	pthread_condattr_destroy(&clock);
	ev_async_init(&s->done_watcher, on_done);
	s->done_watcher.data = s;
	ev_async_start(l->ev, &s->done_watcher);
	if (!take_guard(s, path, why, cap)) {
		sqlite_close(s);
		return NULL;
	}
	int rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE, NULL);
	if (rc == SQLITE_OK) {
		sqlite3_busy_timeout(s->db, 1000);
		rc = prepare_database(s);
	}
	if (rc == SQLITE_OK && start_worker(s) == 0)
		return s;
	int system_err = (rc & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(s->db) : 0; /* such as a full disk's */
	if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
		snprintf(why, cap, TAKEN, path);
	else if (rc == SQLITE_MISMATCH)
		snprintf(why, cap, "store %s: written by another version of tunneld; move it away to start afresh",
			 path);
	else if (rc == SQLITE_NOTADB || rc == SQLITE_CORRUPT)
		snprintf(why, cap,
			 "store %s: %s; move it away to start afresh (sessions that are open now are then lost)", path,
			 sqlite3_errmsg(s->db));
	else
		snprintf(why, cap, "store %s: %s%s%s", path, rc == SQLITE_OK ? "no thread" : sqlite3_errmsg(s->db),
			 system_err ? ": " : "", system_err ? strerror(system_err) : "");
	sqlite_close(s);
	return NULL;
}

const struct td_store_ops td_store_sqlite = {
    "sqlite:", sqlite_open, sqlite_load, sqlite_put, sqlite_del, sqlite_stats, sqlite_close,
};
