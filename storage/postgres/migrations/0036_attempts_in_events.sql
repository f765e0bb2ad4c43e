-- Events that name an attempt, also those that are done: streams replay them.
-- no transaction: each batch commits, so that nobody waits long; whoever writes goes on.
-- statement_timeout 60min: it goes through the whole outbox once.
do $$
declare
    last bigint := 0;
    upto bigint;
begin
    loop
        select max(id) into upto from (select id from outbox where id > last order by id limit 1000) next;
        exit when upto is null;
        update outbox
           set payload = payload - 'hand_out' || jsonb_build_object('attempt', payload -> 'hand_out')
         where id > last and id <= upto and payload ? 'hand_out';
        last := upto;
        commit;
    end loop;
end $$;
