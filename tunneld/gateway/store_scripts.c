/* What the shared store's server does at one go.  Scripts are loaded on each new connection and called by their SHA-1.
 * They name their keys themselves, so the store is one server (with replicas), not a cluster of shards. */
#include "lib/crypto.h"
#include "lib/enc.h"
#include "tunneld/gateway/store_redis_internal.h"
#include <string.h>

#define P "tunneld:" STORE_SCHEMA ":"
/* There is a key of its, and its process listens. */
#define ALIVE                                                                                                          \
	"local function alive(n) return n and redis.call('EXISTS','" P "node:'..n)==1 and "                            \
	"tonumber(redis.call('PUBSUB','NUMSUB','" P "n:'..n)[2])>0 end "

static const char *const texts[STORE_SCRIPTS] = {
    /* node, incarnation, peer, ms → 0: another one runs under that name */
    [STORE_CLAIM] = ALIVE "local k='" P "node:'..ARGV[1] "
			  "if alive(ARGV[1]) then return 0 end "
			  "redis.call('SET',k,ARGV[2]..' '..ARGV[3],'PX',ARGV[4]) "
			  "redis.call('SADD','" P "nodes',ARGV[1]) redis.call('DEL','" P "load:'..ARGV[1],'" P
			  "leaving:'..ARGV[1]) return 1",
    /* the same → -1: it is another's now; else 1: it was still there, 0: it was not; and name, value of each node */
    [STORE_BEAT] = "local k='" P "node:'..ARGV[1] local v=redis.call('GET',k) "
		   "if v and string.sub(v,1,#ARGV[2])~=ARGV[2] then return {-1} end "
		   "redis.call('SET',k,ARGV[2]..' '..ARGV[3],'PX',ARGV[4]) "
		   "redis.call('SADD','" P "nodes',ARGV[1]) "
		   "redis.call('PEXPIRE','" P "load:'..ARGV[1],ARGV[4]) "
		   "local out={v and 1 or 0} "
		   "for _,n in ipairs(redis.call('SMEMBERS','" P "nodes')) do "
		   "local w=redis.call('GET','" P "node:'..n) "
		   "if w then out[#out+1]=n out[#out+1]=w else redis.call('SREM','" P "nodes',n) end end "
		   "return out",
    /* node, incarnation */
    [STORE_LEAVE] = "local k='" P "node:'..ARGV[1] local v=redis.call('GET',k) "
		    "if v and string.sub(v,1,#ARGV[2])==ARGV[2] then "
		    "redis.call('DEL',k,'" P "load:'..ARGV[1],'" P "leaving:'..ARGV[1]) redis.call('SREM','" P
		    "nodes',ARGV[1]) end return 1",
    /* id, node, epoch, 1 active, ms to keep, user, started, fields → 0: it is another node's now */
    [STORE_PUT] = "local k='" P "sess:'..ARGV[1] local r=redis.call('HMGET',k,'epoch','node') "
		  "local e=tonumber(ARGV[3]) "
		  "if r[1] and (tonumber(r[1])>e or (tonumber(r[1])==e and r[2]~=ARGV[2])) then return 0 end "
		  "redis.call('HSET',k,'node',ARGV[2],'epoch',ARGV[3],unpack(ARGV,8)) "
		  /* it was taken, and the store has forgotten that: as in FIND */
		  "if r[2] and r[2]~=ARGV[2] then redis.call('PUBLISH','" P
		  "n:'..r[2],cjson.encode({op='lost',session=ARGV[1],from=ARGV[2],epoch=e})) end "
		  "redis.call('PEXPIRE',k,ARGV[5]) "
		  "local act,past='" P "act:'..ARGV[6],'" P "past:'..ARGV[6] "
		  "if ARGV[4]=='1' then redis.call('ZADD',act,ARGV[7],ARGV[1]) "
		  "redis.call('SADD','" P "of:'..ARGV[2],ARGV[1]) return 1 end "
		  "redis.call('ZREM',act,ARGV[1]) redis.call('SREM','" P "of:'..ARGV[2],ARGV[1]) "
		  "redis.call('ZADD',past,ARGV[7],ARGV[1]) "
		  "local over=redis.call('ZCARD',past)-1000 "
		  "if over>0 then for _,o in ipairs(redis.call('ZRANGE',past,0,over-1)) do "
		  "redis.call('DEL','" P "sess:'..o) end redis.call('ZREMRANGEBYRANK',past,0,over-1) end return 1",
    /* id, node, 1 take (2: also from another, 3: so when the node in the id is not there; 4: would that take it? 5:
       what an earlier process of ours had) → state, node, epoch, node's value, fields.  Asked twice at a time it is
       taken once: what is written in between has the epoch of the first answer. */
    [STORE_FIND] = ALIVE
    "local function there(n) return alive(n) and redis.call('EXISTS','" P "leaving:'..n)==0 end "
    "local k='" P "sess:'..ARGV[1] local r=redis.call('HMGET',k,'node','epoch','end') "
    "if not r[1] then return {'none'} end "
    "if r[3]~='0' then return {'ended',r[1],r[2],'',redis.call('HGETALL',k)} end "
    "local kept=ARGV[3]~='2' and r[1]~=ARGV[2] and there(r[1]) "
    "if kept and (ARGV[3]=='3' or ARGV[3]=='4') then kept=there(string.match(ARGV[1],'%-([%w_]+)%-%x+$')) end "
    "if kept then "
    "return {'other',r[1],r[2],redis.call('GET','" P "node:'..r[1]),redis.call('HGETALL',k)} end "
    "if ARGV[3]=='0' or ARGV[3]=='4' then return {'free',r[1],r[2],'',redis.call('HGETALL',k)} end "
    "if r[1]==ARGV[2] and ARGV[3]~='5' then return {'ours',r[1],r[2],'',redis.call('HGETALL',k)} end "
    "local e=tostring(tonumber(r[2])+1) redis.call('HSET',k,'node',ARGV[2],'epoch',e) "
    "redis.call('SREM','" P "of:'..r[1],ARGV[1]) redis.call('SADD','" P "of:'..ARGV[2],ARGV[1]) "
    "if r[1]~=ARGV[2] then redis.call('PUBLISH','" P
    "n:'..r[1],cjson.encode({op='lost',session=ARGV[1],from=ARGV[2],epoch=tonumber(e)})) end "
    "return {'ours',ARGV[2],e,'',redis.call('HGETALL',k)}",
    /* set, skip, max → id, fields, …; what has expired leaves the set */
    [STORE_LIST] = "local z='" P "'..ARGV[1] local out={} "
		   "for _,id in ipairs(redis.call('ZREVRANGE',z,ARGV[2],ARGV[2]+ARGV[3]-1)) do "
		   "local h=redis.call('HGETALL','" P "sess:'..id) "
		   "out[#out+1]=id out[#out+1]=h end "
		   "for i=1,#out,2 do if #out[i+1]==0 then redis.call('ZREM',z,out[i]) end end return out",
    /* hashes → value, which */
    [STORE_TAKE] = "for i,h in ipairs(ARGV) do local v=redis.call('GETDEL','" P "tok:'..h) "
		   "if v then return {v,i-1} end end return {}",
    /* node, id, facts */
    [STORE_UP] = "local k='" P "inst:'..ARGV[2] local old=redis.call('HGET',k,'node') "
		 "redis.call('HSET',k,'node',ARGV[1],unpack(ARGV,3)) redis.call('PEXPIRE',k,2592000000) "
		 "if old and old~=ARGV[1] then redis.call('PUBLISH','" P
		 "n:'..old,cjson.encode({op='moved',instance=ARGV[2],from=ARGV[1]})) end return 1",
    /* node, id, ping */
    [STORE_DOWN] = "local k='" P "inst:'..ARGV[2] if redis.call('HGET',k,'node')==ARGV[1] then "
		   "redis.call('HDEL',k,'node') redis.call('HSET',k,'ping',ARGV[3]) end return 1",
    /* id, facts */
    [STORE_NOTE] = "local k='" P "inst:'..ARGV[1] redis.call('HSET',k,unpack(ARGV,2)) "
		   "redis.call('PEXPIRE',k,2592000000) return 1",
    /* ids → facts of each, without the node when that is gone */
    [STORE_WHERE] = ALIVE "local out={} for i,id in ipairs(ARGV) do local k='" P "inst:'..id "
			  "local n=redis.call('HGET',k,'node') local h=redis.call('HGETALL',k) "
			  "out[#out+1]=alive(n) and n or '' out[#out+1]=h end return out",
    /* node, user, instance, their limits, their rates, 1 connected here → verdict, node of the instance */
    [STORE_ADMIT] = ALIVE
    "local me,u,i=ARGV[1],'u '..ARGV[2],'i '..ARGV[3] local at=me "
    "if ARGV[8]~='1' then at=redis.call('HGET','" P "inst:'..ARGV[3],'node') "
    "if not alive(at) then return {1,''} end end "
    "local su,si=0,0 for _,n in ipairs(redis.call('SMEMBERS','" P "nodes')) do "
    "if n==me or alive(n) then local v=redis.call('HMGET','" P "load:'..n,u,i) "
    "su=su+tonumber(v[1] or 0) si=si+tonumber(v[2] or 0) end end "
    "if ARGV[4]~='0' and su>=tonumber(ARGV[4]) then return {2,''} end "
    "if ARGV[5]~='0' and si>=tonumber(ARGV[5]) then return {3,''} end "
    "local t=redis.call('TIME') local now=t[1]*1000+math.floor(t[2]/1000) "
    "local due={} for j=1,2 do local per=tonumber(ARGV[5+j]) if per>0 then "
    "local k='" P "rate:'..(j==1 and 'u:' or 'i:')..ARGV[1+j] local v=tonumber(redis.call('GET',k) or 0) "
    "if v>now+60000-60000/per then return {3+j,''} end due[k]=math.max(v,now)+60000/per end end "
    "for k,v in pairs(due) do redis.call('SET',k,string.format('%.3f',v),'PX',120000) end "
    "local l='" P "load:'..me redis.call('HINCRBY',l,u,1) redis.call('HINCRBY',l,i,1) redis.call('PEXPIRE',l,15000) "
    "return {0,at}",
    /* node, "u " or "i ", names → how many sessions each has on all nodes */
    [STORE_SUMS] = ALIVE "local f={} for i=3,#ARGV do f[#f+1]=ARGV[2]..ARGV[i] end "
			 "local out={} for i=1,#f do out[i]=0 end "
			 "for _,n in ipairs(redis.call('SMEMBERS','" P "nodes')) do if n==ARGV[1] or alive(n) then "
			 "for i,v in ipairs(redis.call('HMGET','" P "load:'..n,unpack(f))) do "
			 "out[i]=out[i]+tonumber(v or 0) end end end return out",
    /* node, user, instance, delta */
    [STORE_COUNT] = "local l='" P "load:'..ARGV[1] for _,f in ipairs({'u '..ARGV[2],'i '..ARGV[3]}) do "
		    "if redis.call('HINCRBY',l,f,ARGV[4])<=0 then redis.call('HDEL',l,f) end end "
		    "redis.call('PEXPIRE',l,15000) return 1",
};
static char shas[STORE_SCRIPTS][41];

const char *td_store_script_sha(enum store_script k)
{
	uint8_t raw[20];
	if (!shas[k][0]) {
		tnl_sha1(texts[k], strlen(texts[k]), raw);
		tnl_hex(raw, sizeof(raw), shas[k]);
	}
	return shas[k];
}

void td_store_scripts_load(struct td_redis *c)
{
	for (int k = 0; k < STORE_SCRIPTS; k++) {
		const struct tnl_redis_arg v[] = {STORE_TEXT("SCRIPT"), STORE_TEXT("LOAD"), STORE_TEXT(texts[k])};
		(void)td_redis_send(c, v, 3, NULL,
				    NULL); /* without it its calls fail, and the connection is made anew */
	}
}
