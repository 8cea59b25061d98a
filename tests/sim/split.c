/* One session, three gateways and the store that says which of them owns it: a model of the rule by which they take
 * sessions over (the scripts PUT and FIND of tunneld/gateway/store_scripts.c, what settle.c, route.c and hear.c make of
 * their answers), without their code.  By seed the store delays, drops requests and answers, and now and then fails
 * over to a replica that lacks the last second; nodes are killed and come back; the paths of node and store, node and
 * node, end and node break, some of them without either side hearing of it.
 *
 * At each moment: no two nodes hold the link by which an end is connected; what an end takes, it takes once and in
 * order; the store grants an epoch twice only when it has forgotten the first.  When all is well again for a minute:
 * one node has the session, both ends are there, the store says so, and bytes flow both ways. */
#include "tests/sim/sim.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NODES 3
#define STEP (10 * MS)
#define FAULTS_NS (60 * SEC)
#define QUIET_NS (60 * SEC)
#define BEAT_NS (5 * SEC)
#define LIFE_NS (15 * SEC)
#define ASK_NS (2 * SEC)
#define FORGET_STEPS 100 /* a second */
#define PENDING 24
#define EVENTS 256

enum op { OP_LOOK, OP_TAKE, OP_TAKE_BACK, OP_PUT, OP_BEAT };
enum where { W_OTHER, W_FREE, W_OURS, W_STALE, W_OK };
enum kind { EV_ASK, EV_ANSWER, EV_LOST, EV_ARRIVE, EV_CLOSED };

struct word {
	uint64_t at; /* 0: free */
	enum kind kind;
	enum op op;
	enum where where;
	int node, owner, end;
	unsigned epoch, life; /* of the node: what was meant for an earlier one is void */
	unsigned conn, ask;
	bool handed;
};

struct record { /* of the session, in the store */
	int node;
	unsigned epoch, life; /* of the node's process */
};

struct pending { /* a link that waits for the store; or a PUT (end -1) */
	unsigned ask, conn;
	int end;
	uint64_t until;
	bool handed;
	enum op op;
};

struct gateway {
	bool up, linked; /* to the store */
	unsigned life, epoch;
	bool has, put_due;
	unsigned conn[2]; /* links of the ends; some are dead, and it does not know */
	uint64_t beat_at, back_at, link_at;
	uint64_t dead_at[2]; /* when it notices */
	struct pending p[PENDING];
};

struct party {
	unsigned conn; /* 0: none */
	int at;	       /* the node that has it */
	int via;       /* that it came to */
	uint64_t retry_at, dead_at;
	uint64_t sent, taken, taken_at;
};

struct split {
	struct rng rng;
	uint64_t now;
	struct record rec, past[FORGET_STEPS];
	uint64_t key_until[NODES];
	bool heard[NODES]; /* it is subscribed, as the store sees it */
	struct gateway n[NODES];
	struct party e[2];
	bool store_cut[NODES], peer_cut[NODES][NODES], end_cut[2][NODES];
	struct word ev[EVENTS];
	unsigned next_conn, next_ask;
	uint64_t fail_at;
	unsigned takes, moves, forgets;
	char fail[200];
	int verbose;
};

static void tell(const struct split *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(const struct split *s, const char *fmt, ...)
{
	va_list ap;
	if (!s->verbose)
		return;
	printf("%8.2f ", (double)s->now / 1e9);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static bool quiet(const struct split *s)
{
	return s->now >= FAULTS_NS;
}

/* --- messages ---------------------------------------------------------------------------------- */
static uint64_t latency(struct split *s)
{
	return rng_chance(&s->rng, quiet(s) ? 0 : 20) ? rng_between(&s->rng, 200 * MS, 2500 * MS)
						      : rng_between(&s->rng, 1 * MS, 60 * MS);
}

static void post(struct split *s, struct word e, uint64_t in)
{
	for (int i = 0; i < EVENTS; i++)
		if (!s->ev[i].at) {
			s->ev[i] = e;
			s->ev[i].at = s->now + in + 1;
			return;
		}
	snprintf(s->fail, sizeof(s->fail), "too many messages on their way");
}

static bool lossy(struct split *s)
{
	return !quiet(s) && rng_chance(&s->rng, 10);
}

static void close_conn(struct split *s, int end, unsigned conn)
{
	post(s, (struct word){.kind = EV_CLOSED, .end = end, .conn = conn}, rng_between(&s->rng, 1 * MS, 30 * MS));
}

/* false: there are too many already. */
static bool ask(struct split *s, int node, enum op op, int end, unsigned conn, bool handed)
{
	struct gateway *n = &s->n[node];
	for (int i = 0; i < PENDING; i++) {
		struct pending *p = &n->p[i];
		if (p->ask)
			continue;
		*p = (struct pending){.ask = ++s->next_ask,
				      .conn = conn,
				      .end = end,
				      .until = s->now + ASK_NS,
				      .handed = handed,
				      .op = op};
		const struct word e = {
		    .kind = EV_ASK, .op = op, .node = node, .epoch = n->epoch, .life = n->life, .ask = p->ask};
		if (n->linked && !lossy(s))
			post(s, e, latency(s));
		return true;
	}
	return false;
}

/* --- the store ------------------------------------------------------------------------------------ */
static bool alive(const struct split *s, int node)
{
	return s->key_until[node] > s->now && s->heard[node];
}

static void tell_lost(struct split *s, int owner, int taker, unsigned epoch)
{
	if (owner != taker && s->heard[owner] && !s->store_cut[owner])
		post(s, (struct word){.kind = EV_LOST, .node = owner, .life = s->n[owner].life, .epoch = epoch},
		     latency(s));
}

static enum where run_put(struct split *s, const struct word *e)
{
	if (s->rec.epoch > e->epoch || (s->rec.epoch == e->epoch && s->rec.node != e->node))
		return W_STALE;
	tell_lost(s, s->rec.node, e->node, e->epoch); /* the store had forgotten that we took it */
	s->rec = (struct record){e->node, e->epoch, e->life};
	return W_OK;
}

static enum where run_find(struct split *s, const struct word *e)
{
	int owner = s->rec.node;
	if (e->op != OP_TAKE_BACK && owner != e->node && alive(s, owner))
		return W_OTHER;
	if (e->op == OP_LOOK)
		return W_FREE;
	if (owner == e->node && s->rec.life == e->life) /* asked twice at a time */
		return W_OURS;
	s->rec = (struct record){e->node, s->rec.epoch + 1, e->life};
	s->takes++;
	if (!quiet(s) && rng_chance(&s->rng, 200)) /* so that it is forgotten */
		s->fail_at = s->now + rng_between(&s->rng, 0, 900 * MS);
	s->moves += owner != e->node;
	tell_lost(s, owner, e->node, s->rec.epoch);
	tell(s, "store: n%d takes from n%d, epoch %u", e->node, owner, s->rec.epoch);
	return W_OURS;
}

static void on_ask(struct split *s, struct word *e)
{
	enum where w = W_OK;
	if (s->store_cut[e->node])
		return;
	if (e->op == OP_BEAT)
		s->key_until[e->node] = s->now + LIFE_NS;
	else if (e->op == OP_PUT)
		w = run_put(s, e);
	else
		w = run_find(s, e);
	e->kind = EV_ANSWER;
	e->where = w;
	e->owner = s->rec.node;
	e->epoch = s->rec.epoch;
	if (!lossy(s))
		post(s, *e, latency(s));
}

/* To a replica that lacks the last second; every connection to the old one breaks. */
static void fail_over(struct split *s)
{
	struct record old = s->past[(s->now / STEP + 1) % FORGET_STEPS];
	s->forgets++;
	tell(s, "store: fails over, n%d epoch %u -> n%d epoch %u", s->rec.node, s->rec.epoch, old.node, old.epoch);
	s->rec = old;
	for (int i = 0; i < NODES; i++) {
		s->heard[i] = s->n[i].linked = false;
		s->n[i].link_at = s->now + rng_log(&s->rng, 50 * MS, 6 * SEC);
	}
}

/* --- a node ------------------------------------------------------------------------------------------ */
static void lose(struct split *s, int node, const char *why)
{
	struct gateway *n = &s->n[node];
	if (!n->has)
		return;
	tell(s, "n%d: loses the session (%s)", node, why);
	n->has = false;
	for (int i = 0; i < 2; i++) {
		if (n->conn[i])
			close_conn(s, i, n->conn[i]);
		n->conn[i] = 0;
	}
}

static void attach(struct split *s, int node, int end, unsigned conn)
{
	struct gateway *n = &s->n[node];
	if (n->conn[end] && n->conn[end] != conn)
		close_conn(s, end, n->conn[end]);
	n->conn[end] = conn;
	n->dead_at[end] = 0;
	n->put_due = true;
	if (s->e[end].conn == conn) {
		s->e[end].at = node;
		s->e[end].dead_at = 0;
	}
	tell(s, "n%d: end %d attached, epoch %u", node, end, n->epoch);
}

/* A link has come: it is attached, or the store is asked. */
static void arrive(struct split *s, int node, int end, unsigned conn, bool handed)
{
	if (!s->n[node].up)
		close_conn(s, end, conn);
	else if (s->n[node].has)
		attach(s, node, end, conn);
	else if (!ask(s, node, OP_LOOK, end, conn, handed))
		close_conn(s, end, conn);
}

static void on_look(struct split *s, int node, const struct pending *p, const struct word *e)
{
	bool home = node == 0; /* n0 is in the session's id */
	if (e->where == W_OTHER && !home) {
		if (p->handed || s->peer_cut[node][e->owner] || !s->n[e->owner].up)
			close_conn(s, p->end, p->conn);
		else
			post(s,
			     (struct word){
				 .kind = EV_ARRIVE, .node = e->owner, .end = p->end, .conn = p->conn, .handed = true},
			     rng_between(&s->rng, 1 * MS, 20 * MS));
	} else if (!ask(s, node, home ? OP_TAKE_BACK : OP_TAKE, p->end, p->conn, p->handed)) {
		close_conn(s, p->end, p->conn);
	}
}

static void on_taken(struct split *s, int node, const struct pending *p, const struct word *e)
{
	struct gateway *n = &s->n[node];
	if (e->where != W_OURS) {
		close_conn(s, p->end, p->conn);
		return;
	}
	n->has = true;
	if (e->epoch > n->epoch)
		n->epoch = e->epoch;
	attach(s, node, p->end, p->conn);
}

static void on_answer(struct split *s, const struct word *e)
{
	struct gateway *n = &s->n[e->node];
	if (!n->up || n->life != e->life || !n->linked)
		return;
	for (int i = 0; i < PENDING; i++) {
		struct pending p = n->p[i];
		if (p.ask != e->ask)
			continue;
		n->p[i].ask = 0;
		if (p.op == OP_PUT && e->where == W_STALE)
			lose(s, e->node, "a newer epoch");
		else if (p.op == OP_LOOK && n->has)
			attach(s, e->node, p.end, p.conn);
		else if (p.op == OP_LOOK)
			on_look(s, e->node, &p, e);
		else if (p.op == OP_TAKE || p.op == OP_TAKE_BACK)
			on_taken(s, e->node, &p, e);
	}
}

static void time_out(struct split *s, int node)
{
	struct gateway *n = &s->n[node];
	for (int i = 0; i < PENDING; i++) {
		struct pending p = n->p[i];
		if (!p.ask || p.until > s->now)
			continue;
		n->p[i].ask = 0;
		if (p.end >= 0)
			close_conn(s, p.end, p.conn);
	}
}

/* The connection to the store is there again: it is told what we have. */
static void relink(struct split *s, int node)
{
	struct gateway *n = &s->n[node];
	n->linked = s->heard[node] = true;
	n->beat_at = s->now;
	n->put_due = n->has;
	s->key_until[node] = s->now + LIFE_NS;
}

static void step_node(struct split *s, int node)
{
	struct gateway *n = &s->n[node];
	if (!n->up && s->now >= n->back_at) {
		n->up = true;
		n->link_at = s->now;
	}
	if (!n->up)
		return;
	if (n->linked && s->store_cut[node] && rng_chance(&s->rng, 20)) { /* it has noticed */
		n->linked = false;
		s->heard[node] = rng_chance(&s->rng, 500); /* the store may not */
	}
	if (!n->linked && !s->store_cut[node] && s->now >= n->link_at)
		relink(s, node);
	if (n->linked && s->now >= n->beat_at && ask(s, node, OP_BEAT, -1, 0, false))
		n->beat_at = s->now + BEAT_NS;
	if (n->put_due && n->has && n->linked && ask(s, node, OP_PUT, -1, 0, false))
		n->put_due = false;
	time_out(s, node);
	for (int i = 0; i < 2; i++)
		if (n->conn[i] && n->dead_at[i] && s->now >= n->dead_at[i]) {
			n->conn[i] = 0;
			n->put_due = true;
		}
}

static void kill_node(struct split *s, int node)
{
	struct gateway *n = &s->n[node];
	tell(s, "n%d: killed", node);
	for (int i = 0; i < 2; i++)
		if (s->e[i].conn && (s->e[i].at == node || s->e[i].via == node))
			close_conn(s, i, s->e[i].conn);
	for (int i = 0; i < PENDING; i++)
		if (n->p[i].ask && n->p[i].end >= 0)
			close_conn(s, n->p[i].end, n->p[i].conn);
	*n = (struct gateway){.life = n->life + 1, .back_at = s->now + rng_between(&s->rng, 200 * MS, 20 * SEC)};
	s->heard[node] = false;
}

/* --- an end ------------------------------------------------------------------------------------------- */
static void drop_link(struct split *s, int end)
{
	struct party *e = &s->e[end];
	e->conn = 0;
	e->dead_at = 0;
	e->retry_at = s->now + rng_between(&s->rng, 100 * MS, 1000 * MS);
}

/* The end has gone without a word, or has left an old link: the node that held it hears so, sooner or later. */
static void forget_link(struct split *s, int end, unsigned conn)
{
	for (int i = 0; i < NODES; i++)
		if (s->n[i].conn[end] == conn)
			s->n[i].dead_at[end] = s->now + rng_between(&s->rng, 10 * MS, 4 * SEC);
}

static void step_end(struct split *s, int end)
{
	struct party *e = &s->e[end];
	if (e->conn && !e->dead_at && s->end_cut[end][e->via])
		e->dead_at = s->now + rng_between(&s->rng, 500 * MS, 3 * SEC);
	if (e->conn && e->dead_at && s->now >= e->dead_at) {
		forget_link(s, end, e->conn);
		drop_link(s, end);
	}
	if (e->conn || s->now < e->retry_at)
		return;
	e->via = (int)rng_below(&s->rng, NODES);
	e->retry_at = s->now + 200 * MS;
	if (!s->n[e->via].up || s->end_cut[end][e->via])
		return;
	e->conn = ++s->next_conn;
	e->at = e->via;
	e->dead_at = s->now + 8 * SEC; /* without a word */
	post(s, (struct word){.kind = EV_ARRIVE, .node = e->via, .end = end, .conn = e->conn},
	     rng_between(&s->rng, 5 * MS, 50 * MS));
}

static bool reaches(const struct split *s, int node, int end)
{
	const struct party *e = &s->e[end];
	return e->conn && s->n[node].conn[end] == e->conn && !s->end_cut[end][e->via] &&
	       (e->via == node || !s->peer_cut[e->via][node]);
}

/* From one end to the other by whichever node has links to both. */
static void step_bytes(struct split *s, int from)
{
	struct party *to = &s->e[!from];
	int nodes[2] = {0, 0};
	for (int i = 0; i < NODES; i++) {
		if (s->n[i].up && s->n[i].has) {
			nodes[0] += s->n[i].conn[0] && s->n[i].conn[0] == s->e[0].conn;
			nodes[1] += s->n[i].conn[1] && s->n[i].conn[1] == s->e[1].conn;
		}
		if (!s->n[i].up || !s->n[i].has || !reaches(s, i, from) || !reaches(s, i, !from))
			continue;
		uint64_t number = s->e[from].sent; /* what is not acknowledged is sent again */
		if (number != to->taken)
			snprintf(s->fail, sizeof(s->fail), "end %d is sent %llu, wants %llu", !from,
				 (unsigned long long)number, (unsigned long long)to->taken);
		to->taken++;
		to->taken_at = s->now;
		s->e[from].sent++;
	}
	if (nodes[0] > 1 || nodes[1] > 1)
		snprintf(s->fail, sizeof(s->fail), "two nodes hold the link of one end");
}

/* --- all of it ------------------------------------------------------------------------------------------- */
static void run_event(struct split *s, struct word *e)
{
	switch (e->kind) {
	case EV_ASK:
		on_ask(s, e);
		break;
	case EV_ANSWER:
		on_answer(s, e);
		break;
	case EV_LOST:
		if (s->n[e->node].life == e->life && s->n[e->node].linked && s->n[e->node].epoch <= e->epoch)
			lose(s, e->node, "another took it");
		break;
	case EV_ARRIVE:
		if (s->e[e->end].conn == e->conn)
			arrive(s, e->node, e->end, e->conn, e->handed);
		break;
	case EV_CLOSED:
		for (int i = 0; i < NODES; i++)
			if (s->n[i].conn[e->end] == e->conn)
				s->n[i].conn[e->end] = 0;
		if (s->e[e->end].conn == e->conn)
			drop_link(s, e->end);
		break;
	}
}

static void misbehave(struct split *s)
{
	if (quiet(s)) {
		memset(s->store_cut, 0, sizeof(s->store_cut));
		memset(s->peer_cut, 0, sizeof(s->peer_cut));
		memset(s->end_cut, 0, sizeof(s->end_cut));
		return;
	}
	int a = (int)rng_below(&s->rng, NODES), b = (int)rng_below(&s->rng, NODES), end = (int)rng_below(&s->rng, 2);
	if (rng_chance(&s->rng, 3))
		s->store_cut[a] = !s->store_cut[a];
	if (a != b && rng_chance(&s->rng, 3))
		s->peer_cut[a][b] = s->peer_cut[b][a] = !s->peer_cut[a][b];
	if (rng_chance(&s->rng, 4))
		s->end_cut[end][a] = !s->end_cut[end][a];
	if (rng_chance(&s->rng, 1) && s->n[a].up)
		kill_node(s, a);
	if (rng_chance(&s->rng, 1) || (s->fail_at && s->now >= s->fail_at)) {
		s->fail_at = 0;
		fail_over(s);
	}
}

static void judge(struct split *s)
{
	int owners = 0;
	if (s->fail[0])
		return;
	for (int i = 0; i < NODES; i++) {
		owners += s->n[i].has;
		if (s->n[i].has && (s->rec.node != i || s->rec.epoch != s->n[i].epoch))
			snprintf(s->fail, sizeof(s->fail), "n%d has it with epoch %u, the store says n%d, %u", i,
				 s->n[i].epoch, s->rec.node, s->rec.epoch);
	}
	if (owners != 1)
		snprintf(s->fail, sizeof(s->fail), "%d nodes have the session in the end", owners);
	for (int i = 0; i < 2; i++)
		if (s->now - s->e[i].taken_at > SEC)
			snprintf(s->fail, sizeof(s->fail), "end %d has not been sent anything for %.1f s", i,
				 (double)(s->now - s->e[i].taken_at) / 1e9);
}

bool split_run(uint64_t seed, int verbose, struct split_stats *st)
{
	static struct split s;
	memset(&s, 0, sizeof(s));
	s.rng.x = seed * 0x9e3779b97f4a7c15u + 1;
	s.verbose = verbose;
	s.rec.epoch = 1;
	for (int i = 0; i < NODES; i++)
		s.n[i].up = true;
	s.n[0].has = true;
	s.n[0].epoch = 1;
	for (int i = 0; i < FORGET_STEPS; i++)
		s.past[i] = s.rec;
	for (s.now = STEP; s.now < FAULTS_NS + QUIET_NS && !s.fail[0]; s.now += STEP) {
		misbehave(&s);
		for (int i = 0; i < EVENTS; i++)
			if (s.ev[i].at && s.ev[i].at <= s.now) {
				struct word e = s.ev[i];
				s.ev[i].at = 0;
				run_event(&s, &e);
			}
		for (int i = 0; i < NODES; i++)
			step_node(&s, i);
		for (int i = 0; i < 2; i++) {
			step_end(&s, i);
			step_bytes(&s, i);
		}
		s.past[s.now / STEP % FORGET_STEPS] = s.rec;
	}
	judge(&s);
	if (s.fail[0])
		printf("split seed %llu: %s at %.2f s\n", (unsigned long long)seed, s.fail, (double)s.now / 1e9);
	*st = (struct split_stats){.takes = s.takes,
				   .moves = s.moves,
				   .forgets = s.forgets,
				   .bytes = s.e[0].taken + s.e[1].taken};
	return !s.fail[0];
}
